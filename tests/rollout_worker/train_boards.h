/* Boards of weights of the tiny model, as the train ranks of a run show them to rollout workers. */
#ifndef TROUPE_TESTS_TRAIN_BOARDS_H
#define TROUPE_TESTS_TRAIN_BOARDS_H

#include "test.h"

#include "model/weight_board.h"
#include "../model/draw.h"

#define TINY PROJECT_SOURCE_DIR "/deploy/examples/tiny/model"

/* A trainer's ranks, as far as rollout workers see them. */
typedef struct Boards {
    int tp_size;
    WeightPlan *plan[2];
    Weights *weights[2]; /* those published last */
    WeightBoard *board[2];
    WeightBoardId id[2];
} Boards;

static inline void boards_open(Boards *boards, int tp_size)
{
    Error err = {0};
    ModelConfig model;
    assert_ok(model_config_read(TINY, &model, &err), &err);
    *boards = (Boards){.tp_size = tp_size};
    for (int r = 0; r < tp_size; r++) {
        boards->plan[r] = weight_plan_create(&model, r, tp_size);
        boards->weights[r] = weights_create(boards->plan[r], DTYPE_F32, cpu_kernels(1));
        assert_ok(weight_board_create(&(WeightBoardOptions){boards->plan[r], DTYPE_F32, NULL, 0},
                                      &boards->id[r], &boards->board[r], &err),
                  &err);
    }
}

static inline void boards_publish(Boards *boards, int64_t version, int64_t seed)
{
    for (int r = 0; r < boards->tp_size; r++) {
        draw_weights(boards->weights[r], seed);
        weight_board_publish(boards->board[r], version, boards->weights[r]->kernels,
                             boards->weights[r]->flat);
    }
}

static inline void boards_close(Boards *boards)
{
    for (int r = 0; r < boards->tp_size; r++) {
        weight_board_destroy(boards->board[r]);
        weights_destroy(boards->weights[r]);
        weight_plan_destroy(boards->plan[r]);
    }
}

#endif
