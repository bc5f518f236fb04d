#include "demo_texts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_file(const char *folder, const char *name, infer_error *error)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        infer_fail(error, "cannot read %s: %s", path, strerror(errno));
        return NULL;
    }
    long size = fseek(file, 0, SEEK_END) ? -1 : ftell(file);
    char *text = size > 0 ? malloc((size_t)size + 1) : NULL;
    rewind(file);
    if (!text || fread(text, 1, (size_t)size, file) != (size_t)size) {
        infer_fail(error, "cannot read %s", path);
        free(text);
        text = NULL;
    } else {
        text[size] = 0;
    }
    fclose(file);
    return text;
}

/* Cuts the text into its lines that are not empty. */
static size_t cut_lines(char *text, char **lines, size_t most)
{
    size_t count = 0;
    for (char *line = strtok(text, "\n"); line && count < most; line = strtok(NULL, "\n")) lines[count++] = line;
    return count;
}

/* A letter begins with a line such as "Second letter, 19 May". */
static size_t cut_letters(char *text, char **letters, size_t most)
{
    size_t count = 0;
    for (char *at = text; count < most && (at = strstr(at, " letter, ")); at += strlen(" letter, ")) {
        char *start = at;
        while (start > text && start[-1] != '\n') start--;
        letters[count++] = start;
        if (count > 1 && start > text) start[-1] = 0;
    }
    return count;
}

/* Paragraphs, as many as go into a piece. */
static int cut_pieces(demo_texts *t, const char *text, infer_error *error)
{
    while (*text && t->pieces < DEMO_PIECES) {
        size_t length = 0, next = 0;
        while (text[next] && (length == 0 || next <= DEMO_PIECE_CHARACTERS)) {
            const char *end = strstr(text + next, "\n\n");
            size_t to = end ? (size_t)(end - text) : strlen(text);
            if (length && to > DEMO_PIECE_CHARACTERS) break;
            length = to;
            next = end ? to + 2 : to;
        }
        char *piece = malloc(length + 1);
        if (!piece) return infer_fail(error, "no memory for the texts");
        memcpy(piece, text, length);
        piece[length] = 0;
        t->piece[t->pieces++] = piece;
        text += next;
    }
    return 0;
}

int demo_texts_read(demo_texts *t, const char *folder, infer_error *error)
{
    t->handbook = read_file(folder, "handbook.txt", error);
    t->letters = t->handbook ? read_file(folder, "letters.txt", error) : NULL;
    t->questions_file = t->letters ? read_file(folder, "handbook.questions.txt", error) : NULL;
    t->letter_questions_file = t->questions_file ? read_file(folder, "letters.questions.txt", error) : NULL;
    if (!t->letter_questions_file) return -1;
    if (cut_pieces(t, t->handbook, error) || cut_pieces(t, t->letters, error)) return -1;
    t->questions = cut_lines(t->questions_file, t->question, DEMO_QUESTIONS);
    t->letter_questions = cut_lines(t->letter_questions_file, t->letter_question, DEMO_QUESTIONS);
    t->letter_count = cut_letters(t->letters, t->letter, DEMO_LETTERS);
    if (t->questions < 8 || t->letter_count < 4 || t->letter_questions < 2 * t->letter_count)
        return infer_fail(error, "the texts in %s have %zu questions, %zu letters and %zu questions about them; the "
                          "demo needs 8, 4 and two a letter", folder, t->questions, t->letter_count,
                          t->letter_questions);
    return 0;
}

void demo_texts_free(demo_texts *t)
{
    for (size_t i = 0; i < t->pieces; i++) free(t->piece[i]);
    free(t->handbook);
    free(t->letters);
    free(t->questions_file);
    free(t->letter_questions_file);
    memset(t, 0, sizeof *t);
}
