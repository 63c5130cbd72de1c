#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "places.h"
#include "test.h"

TEST(places, of_a_volume)
{
    struct store_url one = {.scheme = "s3", .bucket = (char *)"data", .prefix = (char *)"a/"};
    struct store_url two = {.scheme = "s3", .bucket = (char *)"data", .prefix = (char *)"b/"};
    struct store_url file = {
        .scheme = "file", .bucket = (char *)"/srv/my bucket", .prefix = (char *)""};
    cleanup(free_ptr) char *a = places_default(&one, NULL), *again = places_default(&one, NULL);
    cleanup(free_ptr) char *b = places_default(&two, NULL),
                           *elsewhere = places_default(&one, "http://host:1");
    cleanup(free_ptr) char *f = places_default(&file, NULL);
    check_str(a, again);
    check(strcmp(a, b) != 0 && strcmp(a, elsewhere) != 0);
    check(strstr(a, "/sluice/data-") != NULL);
    check(strstr(f, "/sluice/my-bucket-") != NULL);
}

TEST(places, are_made_with_their_parents)
{
    char root[] = "/tmp/sluice-places.XXXXXX";
    check(mkdtemp(root) != NULL);
    cleanup(free_ptr) char *deep = NULL;
    check(asprintf(&deep, "%s/a/b", root) > 0);
    struct error error = {0};
    struct stat st;
    check_int(places_make(deep, &error), 0);
    check_int(places_make(deep, &error), 0);
    check_int(stat(deep, &st), 0);
    check_int(st.st_mode & 0777, 0700);
    check_int(rmdir(deep), 0);
    FILE *f = fopen(deep, "w");
    check(f != NULL);
    if (f)
        fclose(f);
    check_int(places_make(deep, &error), -ENOTDIR);
    check_int(unlink(deep), 0);
    deep[strlen(deep) - 2] = 0;
    check_int(rmdir(deep), 0);
    check_int(rmdir(root), 0);
}

TEST(places, that_were_made_are_taken_away_but_for_what_is_used)
{
    char root[] = "/tmp/sluice-places.XXXXXX";
    check(mkdtemp(root) != NULL);
    cleanup(free_ptr) char *deep = NULL, *beside = NULL, *a = NULL;
    check(asprintf(&a, "%s/a", root) > 0 && asprintf(&deep, "%s/a/b", root) > 0 &&
          asprintf(&beside, "%s/a/c", root) > 0);
    struct places_made made = {0};
    struct error error = {0};
    check_int(places_make_noted(deep, &made, &error), 0);
    check_int(places_make_noted(deep, &made, &error), 0);
    check_int(made.count, 2);
    check(places_made_it(&made, a) && places_made_it(&made, deep) && !places_made_it(&made, root));
    check_int(places_make(beside, &error), 0);
    places_undo(&made);
    check_int(places_count(a), 1);
    places_remove(beside);
    places_undo(&made);
    check_int(places_count(root), 0);
    check_int(places_count(a), 0);
    places_made_done(&made);
    check_int(rmdir(root), 0);
}
