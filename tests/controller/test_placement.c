/* Placement against brute force on small clusters, and what it says when there is no place. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "core/placement.h"

#define NODES   4
#define BUNDLES 5

static bool fits_all(const PlacementRequest *request, const int *node_of, bool empty)
{
    bool used[NODES] = {false};
    NodeResources room[NODES];
    for (int n = 0; n < request->num_nodes; n++)
        room[n] = empty ? request->nodes[n].total : request->nodes[n].free;
    for (int b = 0; b < request->num_bundles; b++) {
        int n = node_of[b];
        if (request->strategy == STRICT_PACK && n != node_of[0]) return false;
        if (request->strategy == STRICT_SPREAD && used[n]) return false;
        used[n] = true;
        room[n].cpu -= request->bundles[b].need.cpu;
        room[n].gpu -= request->bundles[b].need.gpu;
        if (room[n].cpu < 0 || room[n].gpu < 0) return false;
    }
    return true;
}

static bool any_placement(const PlacementRequest *request, bool empty)
{
    int node_of[BUNDLES] = {0};
    int total = 1;
    for (int b = 0; b < request->num_bundles; b++)
        total *= request->num_nodes;
    for (int code = 0; code < total; code++) {
        int rest = code;
        for (int b = 0; b < request->num_bundles; b++, rest /= request->num_nodes)
            node_of[b] = rest % request->num_nodes;
        if (fits_all(request, node_of, empty)) return true;
    }
    return false;
}

static int draw(uint64_t seed, uint64_t i, int bound)
{
    return (int)(rng_mix(seed * 7919 + i) % (uint64_t)bound);
}

/* Bundles of one size fit greedily whenever they fit at all; mixed sizes are a bin packing, where
 * PACK and SPREAD may miss a solution but never invent one. */
static void check_case(uint64_t seed, bool one_size)
{
    PlacementNode nodes[NODES];
    BundleSpec bundles[BUNDLES];
    PlacementRequest request = {nodes, 1 + draw(seed, 0, NODES), bundles,
                                1 + draw(seed, 1, BUNDLES), (PlacementStrategy)draw(seed, 2, 4)};
    for (int n = 0; n < request.num_nodes; n++) {
        int cpus = draw(seed, 10 + (uint64_t)n, 9), gpus = draw(seed, 20 + (uint64_t)n, 3);
        nodes[n] = (PlacementNode){.name = "n", .total = {cpus, gpus, 0}};
        nodes[n].free = (NodeResources){draw(seed, 30 + (uint64_t)n, cpus + 1),
                                        draw(seed, 40 + (uint64_t)n, gpus + 1), 0};
    }
    for (int b = 0; b < request.num_bundles; b++) {
        uint64_t which = one_size ? 0 : (uint64_t)b;
        bundles[b] =
            (BundleSpec){b, {1 + draw(seed, 50 + which, 4), draw(seed, 60 + which, 2), 0}, 0, 0};
    }
    int node_of[BUNDLES];
    char why[1024] = "";
    PlacementOutcome outcome = placement_solve(&request, node_of, why, sizeof why);
    bool exact = one_size || request.strategy == STRICT_PACK || request.strategy == STRICT_SPREAD;
    if (outcome == PLACEMENT_FOUND) assert_true(fits_all(&request, node_of, false));
    if (outcome == PLACEMENT_BLOCKED) assert_true(fits_all(&request, node_of, true));
    if (outcome != PLACEMENT_FOUND) assert_true(strlen(why) > 0);
    if (exact && outcome != PLACEMENT_FOUND) assert_false(any_placement(&request, false));
    if (exact && outcome == PLACEMENT_INFEASIBLE) assert_false(any_placement(&request, true));
}

static void test_placement_agrees_with_brute_force(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4000; seed++)
        check_case(seed, seed % 2 == 0);
}

static void test_placement_packs_and_spreads(void **state)
{
    (void)state;
    PlacementNode nodes[3];
    BundleSpec bundles[3];
    for (int i = 0; i < 3; i++) {
        nodes[i] = (PlacementNode){.name = "n", .total = {4, 0, 0}, .free = {4, 0, 0}};
        bundles[i] = (BundleSpec){i, {1, 0, 0}, 0, 0};
    }
    int node_of[3];
    char why[256];
    PlacementRequest request = {nodes, 3, bundles, 3, PACK};
    assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_FOUND);
    assert_true(node_of[0] == node_of[1] && node_of[1] == node_of[2]);
    request.strategy = SPREAD;
    assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_FOUND);
    assert_true(node_of[0] != node_of[1] && node_of[1] != node_of[2] && node_of[0] != node_of[2]);
}

static void test_placement_explains_what_is_missing_and_who_holds_it(void **state)
{
    (void)state;
    PlacementNode node = {.name = "alpha",
                          .total = {2, 0, 0},
                          .free = {0.5, 0, 0},
                          .holders = "job other (1.5 CPUs)"};
    BundleSpec bundles[2] = {{0, {1, 0, 0}, 0, 0}, {1, {1, 0, 0}, 0, 0}};
    int node_of[2];
    char why[1024];
    PlacementRequest request = {&node, 1, bundles, 2, PACK};
    assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_BLOCKED);
    assert_non_null(strstr(why, "alpha: free 0.5 CPUs of 2 CPUs; held by job other"));
    bundles[1].need.cpu = 3;
    assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_INFEASIBLE);
    assert_non_null(strstr(why, "bundle 1 needs 3 CPUs"));
    assert_non_null(strstr(why, "train.tp_size"));
}

static void test_placement_says_which_gpu_is_missing_and_who_holds_it(void **state)
{
    (void)state;
    PlacementNode nodes[2] = {{.name = "plain",
                               .total = {8, 0, 0},
                               .free = {8, 0, 0},
                               .no_gpu = "the NVIDIA driver sees none"},
                              {.name = "fast", .total = {8, 1, 0}, .free = {8, 0, 0}}};
    nodes[1].holders = "job other (1 CPU, 1 GPU)";
    BundleSpec bundles[2] = {{0, {1, 0, 0}, 0, 0}, {1, {1, 1, 0}, 0, 0}};
    int node_of[2];
    char why[1024];
    PlacementRequest request = {nodes, 2, bundles, 2, PACK};
    assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_BLOCKED);
    assert_int_equal(node_of[1], 1);
    assert_non_null(strstr(why, "bundle 1 needs 1 CPU, 1 GPU and finds no place"));
    assert_non_null(strstr(why, "node plain: free 8 CPUs, 0 GPUs of 8 CPUs, 0 GPUs; no GPU: the "
                                "NVIDIA driver sees none"));
    assert_non_null(strstr(why, "node fast: free 8 CPUs, 0 GPUs of 8 CPUs, 1 GPU; held by job "
                                "other (1 CPU, 1 GPU)"));
    bundles[0].need.gpu = 1;
    assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_INFEASIBLE);
    assert_non_null(strstr(why, "can never be placed"));
    assert_non_null(strstr(why, "device: cpu"));
}

static void test_placement_keeps_bundles_with_the_gpu_that_they_use(void **state)
{
    (void)state;
    PlacementNode nodes[2] = {{.name = "a", .total = {2, 1, 0}, .free = {2, 1, 0}},
                              {.name = "b", .total = {3, 1, 0}, .free = {3, 1, 0}}};
    BundleSpec bundles[4] = {{0, {0.5, 0, 0}, 0, 0},
                             {1, {1.5, 0, 0}, 1 + 3, 0}, /* with bundle 3: 2.5 CPUs, so on node b */
                             {2, {1, 1, 0}, 0, 0},
                             {3, {1, 1, 0}, 0, 0}};
    int node_of[4];
    char why[1024];
    for (int strategy = PACK; strategy <= SPREAD; strategy++) {
        PlacementRequest request = {nodes, 2, bundles, 4, (PlacementStrategy)strategy};
        assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_FOUND);
        assert_true(node_of[1] == 1 && node_of[3] == 1 && node_of[2] == 0);
    }
    bundles[1].need.cpu = 2.5;
    PlacementRequest request = {nodes, 2, bundles, 4, PACK};
    assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_INFEASIBLE);
    assert_non_null(strstr(why, "bundle 3 needs 3.5 CPUs, 1 GPU"));
}

/* As ranks of a rollout worker are: 2 beside 1, which uses the GPU of 3. */
static void test_placement_keeps_bundles_beside_each_other(void **state)
{
    (void)state;
    PlacementNode nodes[2] = {{.name = "a", .total = {4, 2, 0}, .free = {4, 2, 0}},
                              {.name = "b", .total = {4, 3, 0}, .free = {4, 3, 0}}};
    BundleSpec bundles[4] = {{0, {1, 1, 0}, 0, 1 + 3},
                             {1, {1, 0, 0}, 1 + 3, 0},
                             {2, {1, 1, 0}, 0, 1 + 1},
                             {3, {1, 1, 0}, 0, 0}}; /* three GPUs together, so all on node b */
    int node_of[4];
    char why[1024];
    for (int strategy = PACK; strategy <= STRICT_SPREAD; strategy++) {
        PlacementRequest request = {nodes, 2, bundles, 4, (PlacementStrategy)strategy};
        assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_FOUND);
        for (int b = 0; b < 4; b++)
            assert_int_equal(node_of[b], 1);
    }
    nodes[1].total.gpu = nodes[1].free.gpu = 2;
    PlacementRequest request = {nodes, 2, bundles, 4, SPREAD};
    assert_int_equal(placement_solve(&request, node_of, why, sizeof why), PLACEMENT_INFEASIBLE);
    assert_non_null(strstr(why, "bundle 3 needs 4 CPUs, 3 GPUs"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_placement_agrees_with_brute_force),
        cmocka_unit_test(test_placement_packs_and_spreads),
        cmocka_unit_test(test_placement_explains_what_is_missing_and_who_holds_it),
        cmocka_unit_test(test_placement_says_which_gpu_is_missing_and_who_holds_it),
        cmocka_unit_test(test_placement_keeps_bundles_with_the_gpu_that_they_use),
        cmocka_unit_test(test_placement_keeps_bundles_beside_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
