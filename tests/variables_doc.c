/* Prints docs/variables.md from the table of variables: `cmake --build build --target docs` writes the file, and a
 * test holds the two together. */
#include <stdio.h>
#include <string.h>

#include "base/config.h"

static void print_reader(const char *reader, const char *title)
{
    printf("\n## %s\n\n| variable | values | default | |\n|---|---|---|---|\n", title);
    for (size_t i = 0; i < quire__variable_count; i++) {
        const quire__variable *variable = &quire__variables[i];
        char range[160];
        if (strcmp(variable->reader, reader) != 0)
            continue;
        quire__variable_range(variable, range, sizeof(range));
        printf("| `%s` | %s | %s%s%s | %s |\n", variable->name, range, variable->standard[0] ? "`" : "not set",
               variable->standard, variable->standard[0] ? "`" : "", variable->help);
    }
}

int main(void)
{
    printf("# Variables\n\n"
           "Made from the table in `src/base/config.c` (target `docs`); do not edit.\n\n"
           "What the program sets in `quire_options` goes before the environment, the environment before the default. A\n"
           "variable that is set but empty counts as not set. A malformed value is an error that names the variable, the\n"
           "value and the range; a name that begins with `QUIRE_` and is not below is warned about once. `QUIRE_LOG=info`\n"
           "lists what is in force when a cache opens.\n");
    print_reader("library", "Library");
    print_reader("examples", "Examples");
    print_reader("scripts", "Scripts");
    print_reader("tests", "Tests");
    return 0;
}
