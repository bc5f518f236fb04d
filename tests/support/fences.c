#include "fences.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "testing.h"

/* In a child, because a debug build's assertions may notice first, or a wrong order may hang: that counts as caught too. Its
 * stderr is closed so that an expected assertion does not read like a failure. */
static bool caught_by(const world_options *options)
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        world_result result;
        alarm(60);
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(2);
        _exit(world_run(options, &result) ? 0 : 1);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void some_seed_must_fail(world_options (*world_of)(uint64_t seed), uint64_t most, missing_fence without)
{
    for (uint64_t seed = 1; seed <= most; seed++) {
        const world_options whole = world_of(seed);
        world_options options = whole;
        options.book_holes = without.book_holes;
        options.mover_holes = without.mover_holes;
        options.cache_holes = without.cache_holes;
        options.staging_hole = without.staging_hole;
        if (!caught_by(&options))
            continue;
        print_message("without %s: seed %llu fails\n", without.fence, (unsigned long long)seed);
        assert_false(caught_by(&whole));
        return;
    }
    fail_msg("without %s none of %llu seeds failed: the test does not see this fence", without.fence,
             (unsigned long long)most);
}
