/* usage: write-read-only DIR FILE [disk MAJOR MINOR | leave PATH | keep CAPABILITY ARGUMENT...]
 *
 * Tries, as a container's root would, to write a directory that it is shown read-only, by each
 * way the kernel has; prints what came of each, then "done", and sleeps. "disk": it makes a node of
 * that disk and opens it; "leave": it leaves its chroot and writes a file; "keep": before that, it
 * drops every capability but this one, by its number. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

struct attributes { uint64_t set, clear, propagation, user_namespace; };
#define RDONLY 1
#define CLONE 1

static void tell(const char *way, const char *step, int failed)
{
	printf("%s %s %s\n", way, failed ? step : "written", failed ? strerrorname_np(errno) : "");
	fflush(stdout);
}

static int make(int dir, const char *path)
{
	int file = openat(dir, path, O_WRONLY | O_CREAT, 0600);
	return file < 0 || write(file, "x", 1) != 1;
}

static void below(const char *way, int failed, const char *dir)
{
	char path[4096];
	if (failed)
		return tell(way, "refused", 1);
	snprintf(path, sizeof path, "%s/%s", dir, way);
	tell(way, "unwritable", make(AT_FDCWD, path));
}

static void by_tree(const char *dir)
{
	struct attributes writable = { .clear = RDONLY };
	int tree = syscall(SYS_open_tree, AT_FDCWD, dir, CLONE | O_CLOEXEC);
	if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &writable, sizeof writable))
		return tell("open_tree", "refused", 1);
	tell("open_tree", "unwritable", make(tree, "open_tree"));
}

/* The object itself, through the mount of the container's own root. */
static void by_handle(const char *file)
{
	union { struct file_handle head; char room[sizeof(struct file_handle) + MAX_HANDLE_SZ]; } handle;
	int mount_id, root = open("/", O_RDONLY), object;
	handle.head.handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(AT_FDCWD, file, &handle.head, &mount_id, 0))
		return tell("handle", "refused", 1);
	object = open_by_handle_at(root, &handle.head, O_WRONLY);
	if (object < 0)
		return tell("handle", "refused", 1);
	tell("handle", "unwritable", pwrite(object, "x", 1, 0) != 1);
}

static void disk(int major, int minor)
{
	unlink("/disk");
	if (mknod("/disk", S_IFBLK | 0600, makedev(major, minor)))
		return tell("disk", "refused", 1);
	tell("disk", "unwritable", open("/disk", O_WRONLY) < 0);
}

/* In a process of its own, whose root is another one then. */
static void leave(const char *path)
{
	if (fork())
		return (void)wait(NULL);
	mkdir("/inner", 0700);
	if (chroot("/inner"))
		tell("chroot", "refused", 1);
	else {
		for (int up = 0; up < 100; up++)
			chdir("..");
		chroot(".");
		tell("chroot", "unwritable", make(AT_FDCWD, path));
	}
	_exit(0);
}

/* What it may come to have is settled by the next execve(2). */
static void keep(char **argv, int capability)
{
	char *again[] = { argv[0], argv[1], argv[2], argv[5], argv[6], NULL };
	for (int other = 0; other < 64; other++)
		if (other != capability)
			prctl(PR_CAPBSET_DROP, other);
	execv(argv[0], again);
	_exit(1);
}

int main(int argc, char **argv)
{
	struct attributes writable = { .clear = RDONLY };
	const char *dir = argv[1], *file = argv[2];
	if (argc < 3)
		return 2;
	if (argc == 7 && !strcmp(argv[3], "keep"))
		keep(argv, atoi(argv[4]));
	if (argc == 6 && !strcmp(argv[3], "disk"))
		disk(atoi(argv[4]), atoi(argv[5]));
	if (argc == 5 && !strcmp(argv[3], "leave"))
		leave(argv[4]);
	tell("plainly", "unwritable", make(AT_FDCWD, file));
	by_tree(dir);
	by_handle(file);
	below("mount_setattr",
	      syscall(SYS_mount_setattr, AT_FDCWD, dir, 0, &writable, sizeof writable), dir);
	below("remount", mount(NULL, dir, NULL, MS_REMOUNT | MS_BIND, NULL), dir);
	below("superblock", mount(NULL, dir, NULL, MS_REMOUNT, NULL), dir);
	printf("done\n");
	fflush(stdout);
	sleep(1000);
	return 0;
}
