/* Tests of the equality of mathematical answers: what a teacher would accept, what not, and that
 * the parts below it (exact values, balls) say what they claim. The agreement with Math-Verify is
 * in test_math_corpus.c. */
#include "test.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "rollout_worker/reward/boxed.h"
#include "rollout_worker/reward/math_equal.h"
#include "rollout_worker/reward/math_value.h"

static bool equal(const char *expected, const char *answer)
{
    return math_answers_equal(slice_from(expected), slice_from(answer));
}

#define SAME(expected, answer)                                                                     \
    do {                                                                                           \
        if (!equal(expected, answer)) fail_msg("%s is not %s", expected, answer);                  \
    } while (0)
#define DIFFER(expected, answer)                                                                   \
    do {                                                                                           \
        if (equal(expected, answer)) fail_msg("%s is %s", expected, answer);                       \
    } while (0)

static void test_numbers_are_exact(void **state)
{
    (void)state;
    SAME("\\frac{1}{2}", "0.5");
    SAME("2/4", "\\dfrac12");
    SAME("2^{100}", "1267650600228229401496703205376");
    DIFFER("2^{100}", "1267650600228229401496703205377");
    SAME("\\binom{10}{3}", "120");
    SAME("20!", "2432902008176640000");
    SAME("\\frac{1}{3}", "0.333333");
    DIFFER("\\frac{1}{3}", "0.33");
    DIFFER("\\frac{1}{3}", "0.333");
    SAME("0.\\overline{3}", "1/3");
    SAME("0.1\\overline{6}", "1/6");
    DIFFER("0.0000001", "0.0000002");
    SAME("-\\frac{3}{4}", "\\frac{-3}{4}");
    SAME("-\\frac{3}{4}", "\\frac{3}{-4}");
    SAME("\\gcd(12, 18)", "6");
    SAME("\\lfloor -2.5 \\rfloor", "-3");
    SAME("17 \\bmod 5", "2");
    DIFFER("1/0", "1/0 + 1");
}

static void test_numbers_as_people_write_them(void **state)
{
    (void)state;
    SAME("1234567", "1,234,567");
    SAME("1234567", "1{,}234{,}567");
    SAME("1234567", "1,\\!234,\\! 567");
    SAME("(1,234)", "(1, 234)");
    DIFFER("(1,234)", "1234");
    SAME("3\\frac{1}{2}", "7/2");
    SAME("-3\\frac{1}{2}", "-3.5");
    SAME("3 1/2", "3.5");
    DIFFER("3\\frac{1}{2}", "1.5");
    SAME("\\$18.90", "18.9");
    SAME("50\\%", "50");
    SAME("50\\%", "0.5");
    SAME("50\\%", "\\frac{1}{2}");
    DIFFER("50\\%", "5");
    SAME("12.5\\%", "12.5");
    SAME("1.5 \\times 10^{3}", "1500");
    SAME("1011_2", "1011_{2}");
    SAME("1011_2", "1011");
    DIFFER("1011_2", "1011_3");
    SAME("½", "0.5");
    SAME("3·10²", "300");
}

static void test_units_are_passed_over(void **state)
{
    (void)state;
    SAME("10", "10\\text{ cm}^2");
    SAME("10\\text{ miles per hour}", "10 mph");
    SAME("10", "10 cm.");
    SAME("5", "5 m/s");
    SAME("5", "5 m");
    DIFFER("5m", "5");
    SAME("90^\\circ", "90");
    SAME("90^\\circ", "90°");
    SAME("20^\\circ \\text{C}", "20");
    SAME("20", "20^{\\circ}\\mathrm{F}");
    SAME("20^\\circ C", "20");
    DIFFER("20^\\circ C", "21^\\circ C");
    SAME("\\approx 3.14", "3.14");
    DIFFER("\\approx 3.14", "3.15");
    SAME("3 \\text{ cm}, 4 \\text{ cm}", "3, 4");
    DIFFER("5\\text{ apples}", "6\\text{ apples}");
    SAME("5c+2b", "2b+5c"); /* a variable is no unit */
    SAME("2t", "t+t");
    DIFFER("2t", "2");
}

static void test_expressions_are_compared_by_value(void **state)
{
    (void)state;
    SAME("\\frac{\\sqrt{3}}{2}", "\\frac{3}{2\\sqrt3}");
    SAME("(x+1)^2", "x^2+2x+1");
    DIFFER("(x+1)^2", "x^2+1");
    SAME("\\sin^2 x", "1-\\cos^2 x");
    SAME("\\sin 2x", "2\\sin x\\cos x");
    SAME("\\ln 8", "3\\ln 2");
    SAME("\\log 100", "2");
    SAME("\\log_2 8", "3");
    SAME("e^{i\\pi}", "-1");
    SAME("(1+i)^2", "2i");
    SAME("\\tan 45^\\circ", "1");
    SAME("\\arctan 1", "\\frac{\\pi}{4}");
    SAME("\\sqrt[3]{-8}", "-2");
    SAME("\\frac{1}{x-1}-\\frac{1}{x+1}", "\\frac{2}{x^2-1}");
    SAME("|x-2|", "|2-x|");
    DIFFER("|x|", "x");
    DIFFER("\\sqrt{x^2}", "x");
    DIFFER("\\pi", "3.14");
    DIFFER("\\pi", "\\frac{22}{7}");
    DIFFER("\\pi", "\\frac{355}{113}");
    SAME("1.414214", "\\sqrt{2}");
    SAME("{n \\choose 2}", "\\frac{n(n-1)}{2}");
    SAME("2^n \\cdot 2", "2^{n+1}");
    SAME("xyz", "zyx");
    SAME("X", "x");
}

static void test_cancellation_is_no_equality(void **state)
{
    (void)state;
    DIFFER("\\sqrt{10^{40}+1}-10^{20}", "1");
    DIFFER("10^{12}+\\sqrt{2}", "10^{12}+\\sqrt{3}");
    SAME("\\sqrt{2}+\\sqrt{3}", "\\sqrt{5+2\\sqrt{6}}");
    DIFFER("\\sqrt{2}+\\sqrt{3}", "\\frac{31462643699419}{10^{13}}");
    DIFFER("e^{\\pi\\sqrt{43}}", "884736744");
}

static void test_lists_sets_and_tuples(void **state)
{
    (void)state;
    SAME("1,2", "2, 1");
    SAME("1,2", "\\{2,1\\}");
    SAME("1,2", "2 \\text{ and } 1");
    SAME("1,2", "x=1 \\text{ or } x=2");
    SAME("1,2", "x = 1, 2");
    SAME("\\{1,2\\}", "1,1,2");
    DIFFER("1,2", "1");
    DIFFER("1,2", "1,2,3");
    SAME("(1,2)", "1,2");
    DIFFER("(1,2)", "(2,1)");
    DIFFER("(1,2,3)", "(3,2,1)");
    SAME("(1,2,3)", "\\left(1, 2, \\frac{6}{2}\\right)");
    SAME("(1,2),(3,4)", "(3,4), (1,2)");
    SAME("1\\pm\\sqrt{2}", "1-\\sqrt2, 1+\\sqrt2");
    SAME("x=\\frac{1\\pm\\sqrt5}{2}", "\\frac{1+\\sqrt5}{2},\\frac{1-\\sqrt5}{2}");
    SAME("\\{5\\}", "5");
    SAME("\\emptyset", "\\{\\}");
    SAME("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
         "\\left[\\begin{matrix}1&2\\\\3&4\\end{matrix}\\right]");
    DIFFER("\\begin{pmatrix} 1 & 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}");
    SAME("\\langle 1,2,3 \\rangle", "(1,2,3)");
}

static void test_intervals(void **state)
{
    (void)state;
    SAME("[0,1)", "\\left[0, 1\\right)");
    DIFFER("[0,1)", "(0,1)");
    DIFFER("[0,1)", "[0,1]");
    SAME("(-\\infty,2)\\cup(3,\\infty)", "(3,\\infty)\\cup(-\\infty,2)");
    SAME("(0,1]\\cup(1,2)", "(0,2)");
    SAME("(0,1)\\cup(1,2)", "(0,2)\\setminus\\{1\\}");
    SAME("\\mathbb{R}\\setminus\\{0\\}", "(-\\infty,0)\\cup(0,\\infty)");
    SAME("[0,5]\\cap[3,8]", "[3,5]");
    SAME("(-∞,2)U(3,∞)", "(-\\infty,2)\\cup(3,\\infty)");
    SAME("1<x<2", "(1,2)");
    SAME("x\\ge 3", "[3,\\infty)");
    SAME("x<1 \\text{ or } x>2", "(-\\infty,1)\\cup(2,\\infty)");
    DIFFER("(1,2)", "1<x<2"); /* an interval was asked for */
    SAME("[1,2]", "x \\in [1,2]");
    DIFFER("\\mathbb{R}", "\\mathbb{Z}");
}

static void test_equations_and_inequalities(void **state)
{
    (void)state;
    SAME("x=5", "5");
    SAME("5", "x=5");
    SAME("5", "2+3=5");
    DIFFER("x=5", "y=5");
    DIFFER("2x+z=1", "1");
    SAME("y=2x+1", "2x-y+1=0");
    SAME("y=2x+1", "2y=4x+2");
    SAME("y=2x+1", "2x+1");
    DIFFER("y=2x+1", "y=2x-1");
    SAME("x>3", "3<x");
    SAME("2x>6", "x>3");
    SAME("-x>-3", "x<3");
    DIFFER("x>3", "x\\ge 3");
    DIFFER("x>3", "x<3");
    SAME("1<x\\le 2", "2\\ge x>1");
    SAME("x\\ne 2", "(-\\infty,2)\\cup(2,\\infty)");
    SAME("x=\\sqrt2\\approx 1.41", "\\sqrt{2}");
    SAME("f(x)=2x", "f(x) = x+x");
    SAME("f^{-1}(x)=\\frac{x-1}{2}", "\\frac{x-1}{2}");
    DIFFER("f^{-1}(x)=\\frac{x-1}{2}", "\\frac{x+1}{2}");
    SAME("x_1=3", "3");
}

static void test_words(void **state)
{
    (void)state;
    SAME("\\text{even}", "Even");
    SAME("\\text{(A)}", "A");
    SAME("\\textbf{(B)}", "\\mathrm{B}");
    SAME("\\text{No solution}", "no solution.");
    DIFFER("\\text{east}", "seat");
    DIFFER("\\text{odd}", "even");
    DIFFER("A", "B");
    SAME("\\text{B, E}", "B,E");
    SAME("\\unknown{x}", "\\unknown{x}"); /* spelled alike */
    DIFFER("\\unknown{x}", "\\unknown{y}");
}

static void test_hostile_answers_end(void **state)
{
    (void)state;
    char deep[4000];
    for (size_t i = 0; i + 1 < sizeof deep; i++)
        deep[i] = '{';
    deep[sizeof deep - 1] = '\0';
    DIFFER("1", deep);
    DIFFER("1", "9^{9^{9^{9}}}");
    DIFFER("1", "(((10^{1000})!)!)!");
    DIFFER("1", "\\binom{10^9}{10^8}");
    DIFFER("1", "0.\\overline{0}^{-1}");
    DIFFER("1", "x^{x^{x^{x^{x^{x^{x}}}}}}");
    char sets[4000] = "";
    for (int i = 0; i < 300; i++)
        strcat(sets, "\\pm x,");
    strcat(sets, "1");
    DIFFER(sets, "1,2");
}

/* A mathematician's identities at random points: the radius must cover the error. */
static void test_ball_radius_covers_identities(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"\\sin(x+y)", "\\sin x \\cos y + \\cos x \\sin y"},
        {"e^{x+y}", "e^x e^y"},
        {"\\tan^2 x + 1", "\\sec^2 x"},
        {"\\cosh^2 x - \\sinh^2 x", "1"},
        {"\\frac{x^5-y^5}{x-y}", "x^4+x^3y+x^2y^2+xy^3+y^4"},
        {"\\sqrt{x^2+2xy+y^2}", "|x+y|"},
        {"(x-1)^{12}", "(x^3-3x^2+3x-1)^4"},
        {"\\arcsin x + \\arccos x", "\\frac{\\pi}{2}"},
        {"\\sqrt[3]{x^3}", "x"},
        {"\\ln(x^2)", "2\\ln|x|"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        MathTokens a, b;
        Arena *arena = arena_create();
        assert_true(math_lex(slice_from(pairs[i][0]), &a) && math_lex(slice_from(pairs[i][1]), &b));
        MathNode *left = math_parse(&a, arena), *right = math_parse(&b, arena);
        assert_non_null(left);
        assert_non_null(right);
        int equals = 0;
        for (int point = 0; point < 200; point++) {
            long work = 10000;
            BallOrder order =
                ball_compare(math_ball(left, point, &work), math_ball(right, point, &work));
            if (order == BALLS_DIFFER) fail_msg("%s at point %d", pairs[i][0], point);
            equals += order == BALLS_EQUAL;
        }
        if (equals < 100) fail_msg("%s is decided at %d points of 200", pairs[i][0], equals);
        arena_destroy(arena);
    }
}

static void test_box_braces_are_matched(void **state)
{
    (void)state;
    Slice box;
    assert_true(boxed_find_last(slice_from("a \\boxed{\\frac{1}{2}} b"), &box));
    assert_true(slice_equal(box, slice_from("\\frac{1}{2}")));
    assert_true(boxed_find_last(slice_from("\\boxed{\\{1, 2\\}}"), &box));
    assert_true(slice_equal(box, slice_from("\\{1, 2\\}")));
    assert_true(boxed_find_last(slice_from("\\boxed{3"), &box));
    assert_true(slice_equal(box, slice_from("3")));
    assert_false(boxed_find_last(slice_from("boxed{3}"), &box));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_are_exact),
        cmocka_unit_test(test_numbers_as_people_write_them),
        cmocka_unit_test(test_units_are_passed_over),
        cmocka_unit_test(test_expressions_are_compared_by_value),
        cmocka_unit_test(test_cancellation_is_no_equality),
        cmocka_unit_test(test_lists_sets_and_tuples),
        cmocka_unit_test(test_intervals),
        cmocka_unit_test(test_equations_and_inequalities),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_hostile_answers_end),
        cmocka_unit_test(test_ball_radius_covers_identities),
        cmocka_unit_test(test_box_braces_are_matched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
