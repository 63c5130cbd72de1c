#include "base/crash.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

static void pass_points(void)
{
    for (int i = 0; i < 3; i++) {
        crash_point("test.first");
        crash_point("test.second");
    }
}

/* In a child process: sets up, writes a byte to `out` after each round of points. Returns the
 * child's status, and how many bytes came. */
static int run_child(const char *at, const char *list, int *rounds)
{
    int out[2];
    check_int(pipe(out), 0);
    pid_t pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        if (crash_setup(at, list) < 0)
            _exit(3);
        for (int i = 0; i < 2; i++) {
            pass_points();
            if (write(out[1], "x", 1) != 1)
                _exit(4);
        }
        _exit(0);
    }
    close(out[1]);
    char byte;
    for (*rounds = 0; read(out[0], &byte, 1) == 1; ++*rounds)
        ;
    close(out[0]);
    int status;
    check_int(waitpid(pid, &status, 0), pid);
    return status;
}

TEST(crash_point, does_nothing_when_off)
{
    int rounds;
    check(!crash_armed);
    check_int(run_child(NULL, NULL, &rounds), 0);
    check_int(rounds, 2);
    check_int(run_child("", "", &rounds), 0);
    check_int(run_child("test.other", NULL, &rounds), 0);
    check_int(run_child("test.firs", NULL, &rounds), 0);
    check_int(rounds, 2);
}

TEST(crash_point, kills_at_the_given_passing)
{
    static const struct {
        const char *at;
        int rounds;
    } cases[] = {{"test.second", 0},
                 {"test.second:1", 0},
                 {"test.first:3", 0},
                 {"test.first:4", 1},
                 {"test.second:6", 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int rounds;
        int status = run_child(cases[i].at, NULL, &rounds);
        check(WIFSIGNALED(status));
        check_int(WTERMSIG(status), SIGKILL);
        check_int(rounds, cases[i].rounds);
    }
    int rounds;
    check_int(run_child("test.first:7", NULL, &rounds), 0);
    check_int(rounds, 2);
}

TEST(crash_point, lists_each_point_once)
{
    char dir[4096];
    char path[4200];
    char text[100] = "";
    int rounds;
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/points", dir);
    check_int(run_child(NULL, path, &rounds), 0);
    check_int(run_child("test.second:2", path, &rounds), SIGKILL);
    FILE *f = fopen(path, "re");
    check(f != NULL);
    check(fread(text, 1, sizeof(text) - 1, f) > 0);
    fclose(f);
    test_dir_remove(dir);
    check_str(text, "test.first\ntest.second\ntest.first\ntest.second\n");
}

TEST(crash_setup, refuses_bad_settings)
{
    static const char *const bad[] = {":",      ":1",      "name:",   "name:0",
                                      "name:x", "name:-1", "name:1x", "name:1:2"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (crash_setup(bad[i], NULL) != -EINVAL)
            test_fail("accepted: %s", bad[i]);
    }
    check(!crash_armed);
}
