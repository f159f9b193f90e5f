/* nodehostd: a host of NodeHost as a process that Redis clients talk to. */
#include "cmd/nodehostd/config.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/nodehostd/daemon.h"
#include "cmd/nodehostd/demo.h"
#include "cmd/nodehostd/import.h"
#include "cmd/nodehostd/slots.h"

static const char usage[] = "Examples:\n"
                            "    nodehostd demo --shards 1000              three hosts on this machine, to try things on\n"
                            "    nodehostd --config h1.yaml                runs one host\n"
                            "    nodehostd --config h1.yaml --check-config says what is wrong with a configuration\n"
                            "    nodehostd import --help                   a shard that has lost its majority\n"
                            "\n"
                            "Options:\n"
                            "    --config FILE      the configuration of this host (YAML; see README.md)\n"
                            "    --plugin-dir DIR   where machines (NAME.so) are loaded from\n"
                            "    --check-config     check the configuration, on the machine it is for, and exit\n"
                            "    --trace            log every message and update of every Raft core: a lot\n"
                            "    --version, --help\n"
                            "Options of demo:\n"
                            "    --shards N         how many shards, 1 to 16384 (64)\n"
                            "    --dir DIR          where the data goes; it stays there, and the next demo goes on with it\n"
                            "    --keep             do not remove the temporary directory\n"
                            "    --plugin-dir DIR   as above\n";

static int misuse(const char *text)
{
    fprintf(stderr, "nodehostd: %s\nSee: nodehostd --help\n", text);
    return 2;
}

/* The path of this program; false if the system does not say. */
static bool find_program(char *out)
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);

    if (n <= 0)
        return false;
    out[n] = 0;
    return true;
}

/* In the build tree machines lie beside us, in ../machines; else where they are installed. */
static void find_plugin_dir(char *out)
{
    char program[PATH_MAX], beside[PATH_MAX + 32], *slash;

    if (find_program(program) && (slash = strrchr(program, '/'))) {
        *slash = 0;
        snprintf(beside, sizeof beside, "%s/../machines/kv.so", program);
        if (access(beside, R_OK) == 0) {
            snprintf(beside, sizeof beside, "%s/../machines", program);
            if (realpath(beside, out))
                return;
        }
    }
    snprintf(out, PATH_MAX, "%s", nh_machine_dir());
}

static int check_config(const char *path)
{
    struct nh_error err = {0};

    if (config_examine(path, &err) < 0) {
        fprintf(stderr, "nodehostd: %s\n", err.text);
        return 1;
    }
    printf("%s is a good configuration\n", path);
    return 0;
}

static int run_host(const char *path, const char *plugin_dir)
{
    char dir[PATH_MAX];
    struct config *config;
    struct nh_error err = {0};
    int code;

    if (config_load(path, &config, &err) < 0) {
        fprintf(stderr, "nodehostd: %s\n", err.text);
        return 1;
    }
    if (!plugin_dir) {
        find_plugin_dir(dir);
    } else if (!realpath(plugin_dir, dir)) {
        fprintf(stderr, "nodehostd: plugin directory %s: not found\n", plugin_dir);
        config_free(config);
        return 1;
    }
    code = daemon_run(config, dir);
    config_free(config);
    return code;
}

enum { OPT_CONFIG = 1, OPT_PLUGIN_DIR, OPT_CHECK, OPT_VERSION, OPT_HELP, OPT_SHARDS, OPT_DIR, OPT_KEEP, OPT_TRACE };

static bool parse_shards(const char *text, unsigned *ret)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end || n < 1 || n > SLOTS_TOTAL)
        return false;
    *ret = (unsigned)n;
    return true;
}

static int run_demo(int argc, char **argv)
{
    static const struct option options[] = {{"shards", required_argument, NULL, OPT_SHARDS},
                                            {"dir", required_argument, NULL, OPT_DIR},
                                            {"keep", no_argument, NULL, OPT_KEEP},
                                            {"plugin-dir", required_argument, NULL, OPT_PLUGIN_DIR},
                                            {"help", no_argument, NULL, OPT_HELP},
                                            {0}};
    struct demo_options demo = {0};
    char program[PATH_MAX];
    int o;

    while ((o = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (o) {
        case OPT_SHARDS:
            if (!parse_shards(optarg, &demo.shards))
                return misuse("--shards takes a number from 1 to 16384");
            break;
        case OPT_DIR: demo.dir = optarg; break;
        case OPT_KEEP: demo.keep = true; break;
        case OPT_PLUGIN_DIR: demo.plugin_dir = optarg; break;
        case OPT_HELP:
        case 'h': fputs(usage, stdout); return 0;
        default: return misuse("wrong option");
        }
    }
    if (optind < argc)
        return misuse("demo takes options only");
    if (!find_program(program))
        return misuse("/proc/self/exe cannot be read");
    demo.program = program;
    return demo_run(&demo);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, OPT_CONFIG},
                                            {"plugin-dir", required_argument, NULL, OPT_PLUGIN_DIR},
                                            {"check-config", no_argument, NULL, OPT_CHECK},
                                            {"trace", no_argument, NULL, OPT_TRACE},
                                            {"version", no_argument, NULL, OPT_VERSION},
                                            {"help", no_argument, NULL, OPT_HELP},
                                            {0}};
    const char *config = NULL, *plugin_dir = NULL;
    bool only_check = false;
    int o;

    if (argc > 1 && strcmp(argv[1], "demo") == 0)
        return run_demo(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "import") == 0)
        return import_main(argc - 1, argv + 1);
    while ((o = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (o) {
        case OPT_CONFIG: config = optarg; break;
        case OPT_PLUGIN_DIR: plugin_dir = optarg; break;
        case OPT_CHECK: only_check = true; break;
        case OPT_TRACE: nh_log_set(NH_LOG_DEBUG, NULL, NULL); break;
        case OPT_VERSION: printf("nodehostd %s\n", nh_version()); return 0;
        case OPT_HELP:
        case 'h': fputs(usage, stdout); return 0;
        default: return misuse("wrong option");
        }
    }
    if (optind < argc)
        return misuse("unknown word; did you mean demo or import?");
    if (!config)
        return misuse("--config FILE is missing");
    return only_check ? check_config(config) : run_host(config, plugin_dir);
}
