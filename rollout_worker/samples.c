/* samples: shows what a run generated and saved. People call it as `controller samples`. */
#include <stdio.h>
#include <sys/random.h>

#include "base/options.h"
#include "rollout_worker/browse_view.h"
#include "text/conversation.h"

static const char help[] =
    "usage: controller samples --run FOLDER [--stage NAME] [--step N | --position P]\n"
    "                          [--best | --worst | --random] [--prompt TEXT] [--eval[=SET]]\n"
    "                          [--count K] [--json]\n"
    "       shows answers that a run generated (rollout.save): prompt and answer with what is\n"
    "       trained of them, reward, advantage, length, log-prob, versions of the weights, and "
    "why\n"
    "       an answer was dropped; while the run goes on, or afterwards\n"
    "\n"
    "options:\n"
    "  -r, --run FOLDER      the run folder\n"
    "  -a, --answers FOLDER  where the answers lie, if not where the run's job says\n"
    "      --stage NAME      of this stage of the run, by name or number; default: the last one\n"
    "                        that saved answers\n"
    "  -s, --step N          those that step N consumed; with --eval of the evaluation after step "
    "N\n"
    "  -p, --position P      the answers to one prompt, by its position as the ledger has it\n"
    "  -b, --best            the highest rewards first\n"
    "  -w, --worst           the lowest rewards first\n"
    "  -R, --random[=SEED]   any; the same with the same seed\n"
    "  -t, --prompt TEXT     of prompts that contain the text\n"
    "  -e, --eval[=SET]      answers of an evaluation: of data.eval, or of that set of eval.sets;\n"
    "                        of the newest one without --step\n"
    "  -k, --count K         so many at most; default 1 with --best, --worst and --random, else 8\n"
    "      --json            a JSON object on a line for each, for programs\n"
    "      --color[=WHEN]    always (for a pager: less -R), never, or auto: on a terminal\n"
    "\n"
    "Exit codes: 0 shown, 2 usage, or there is nothing to show, 3 data: what was saved is "
    "damaged.\n";

#define COUNT_MAX 1000000

typedef struct Arguments {
    BrowseOptions browse;
    bool color, json, help, counted;
} Arguments;

static Status take_place(const char *option, int64_t *ret, Error *err)
{
    uint64_t number = 0;
    TRY(option_number(option, optarg, INT64_MAX - 1, &number, err));
    *ret = (int64_t)number;
    return OK;
}

static Status take_order(Arguments *arguments, BrowseOrder order, Error *err)
{
    if (arguments->browse.order != BROWSE_IN_ORDER)
        return option_misuse(help, err,
                             "--best, --worst and --random are three ways to choose: give one.");
    arguments->browse.order = order;
    if (order != BROWSE_RANDOM) return OK;
    if (optarg != NULL)
        return option_number("--random", optarg, INT64_MAX, &arguments->browse.seed, err);
    if (getrandom(&arguments->browse.seed, sizeof arguments->browse.seed, 0) < 0)
        arguments->browse.seed = 0;
    return OK;
}

static Status take_option(Arguments *arguments, int letter, Error *err)
{
    BrowseOptions *browse = &arguments->browse;
    switch (letter) {
    case 'r':
        browse->run = optarg;
        return OK;
    case 'a':
        browse->folder = optarg;
        return OK;
    case 'S':
        browse->stage = optarg;
        return OK;
    case 's':
        return take_place("--step", &browse->step, err);
    case 'p':
        return take_place("--position", &browse->position, err);
    case 'b':
        return take_order(arguments, BROWSE_BEST, err);
    case 'w':
        return take_order(arguments, BROWSE_WORST, err);
    case 'R':
        return take_order(arguments, BROWSE_RANDOM, err);
    case 't':
        browse->prompt = optarg;
        return OK;
    case 'e':
        browse->set = optarg != NULL ? optarg : "eval";
        return OK;
    case 'k':
        arguments->counted = true;
        return option_number("--count", optarg, COUNT_MAX, &browse->count, err);
    case 'j':
        arguments->json = true;
        return OK;
    case 'C':
        return option_color(optarg, &arguments->color, err);
    case 'h':
        arguments->help = true;
        return OK;
    default:
        return OK;
    }
}

static Status parse_arguments(int argc, char **argv, Arguments *ret, Error *err)
{
    static const struct option names[] = {
        {"run", required_argument, NULL, 'r'},
        {"answers", required_argument, NULL, 'a'},
        {"step", required_argument, NULL, 's'},
        {"position", required_argument, NULL, 'p'},
        {"best", no_argument, NULL, 'b'},
        {"worst", no_argument, NULL, 'w'},
        {"random", optional_argument, NULL, 'R'},
        {"prompt", required_argument, NULL, 't'},
        {"eval", optional_argument, NULL, 'e'},
        {"count", required_argument, NULL, 'k'},
        {"json", no_argument, NULL, 'j'},
        {"color", optional_argument, NULL, 'C'},
        {"help", no_argument, NULL, 'h'},
        {"stage", required_argument, NULL, 'S'},
        {0},
    };
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, ":r:a:s:p:bwRt:ek:h", names, NULL)) != -1;) {
        if (letter == '?' || letter == ':') return option_refuse(letter, argv, names, help, err);
        TRY(take_option(ret, letter, err));
    }
    if (ret->help) return OK;
    if (optind < argc) return option_misuse(help, err, "there is an argument too many.");
    if (ret->browse.run == NULL) return option_misuse(help, err, "--run FOLDER is missing.");
    if (!ret->counted) ret->browse.count = ret->browse.order == BROWSE_IN_ORDER ? 8 : 1;
    return OK;
}

typedef struct Screen {
    const Arguments *arguments;
    const Tokenizer *tokenizer; /* or NULL */
    const char *stage;          /* that is told of, or NULL */
    bool more;                  /* one was shown */
} Screen;

static void show(void *context, const BrowsedAnswer *answer)
{
    Screen *screen = context;
    Str out = {0};
    if (screen->arguments->json) {
        browse_view_json(answer, &out);
    } else {
        if (screen->more) str_puts(&out, "\n--------\n\n");
        if (!screen->more && screen->stage != NULL) str_printf(&out, "%s\n\n", screen->stage);
        browse_view_text(answer, screen->tokenizer, screen->arguments->color, &out);
    }
    screen->more = true;
    fputs(str_text(&out), stdout);
    str_free(&out);
}

static Status browse(const Arguments *arguments, Error *err)
{
    Browser *browser = NULL;
    TextModel *model = NULL;
    Screen screen = {.arguments = arguments};
    uint64_t shown = 0;
    TRY(browser_open(&arguments->browse, &browser, err));
    const JobConfig *config = browser_config(browser);
    screen.stage = browser_stage(browser);
    if (!arguments->json &&
        text_model_load(config->model.tokenizer, config->model.chat_template, &model, NULL) == OK)
        screen.tokenizer = text_model_tokenizer(model);
    Status status = browser_show(browser, show, &screen, &shown, err);
    if (status == OK && shown == 0 && arguments->browse.count > 0)
        status = error_set(err, ERR_NOT_FOUND, "no answer that was saved fits what is asked for");
    text_model_destroy(model);
    browser_close(browser);
    return status;
}

int main(int argc, char **argv)
{
    Arguments arguments = {.browse = {.step = -1, .position = -1}, .color = option_color_auto()};
    Error err = {0};
    Status status = parse_arguments(argc, argv, &arguments, &err);
    if (status == OK && arguments.help)
        fputs(help, stdout);
    else if (status == OK)
        status = browse(&arguments, &err);
    fflush(stdout);
    if (status == OK) return 0;
    fprintf(stderr, "controller: samples: %s\n", err.message);
    return status_exit_code(status);
}
