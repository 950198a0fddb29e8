#!/usr/bin/env python3
"""Makes grader_cases.jsonl: responses with the score that the published scorer gives them, for the graders whose rules
are somebody else's: gsm8k (verl), dapo and f1 (slime), instructions (IFEval as in lm-evaluation-harness).

usage: make_grader_cases.py FOLDER OUTPUT
FOLDER holds, copied from those projects: gsm8k.py (verl/utils/reward_score), math_dapo_utils.py and f1.py
(slime/rollout/rm_hub), ifeval.py (lm_eval/tasks/ifeval/instructions.py).

Left out on purpose, as docs/rewards.md says: numbers that are equal and spelled differently, answers like "#### $18"
and a last number that is a comma (gsm8k), keywords that are regular expressions and rules that need nltk or langdetect (instructions)."""
import importlib.util
import json
import random
import re
import sys
import types

R = random.Random(11)


def load(folder, name):
    spec = importlib.util.spec_from_file_location(name, f"{folder}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stub_ifeval():
    """What instructions.py imports and the rules used here do not need."""
    langdetect = types.ModuleType("langdetect")
    langdetect.detect = lambda text: "en"
    langdetect.LangDetectException = type("LangDetectException", (Exception,), {})
    util = types.ModuleType("lm_eval.tasks.ifeval.instructions_util")
    util.LANGUAGE_CODES = {"en": "English"}
    util.count_words = lambda text: len(re.findall(r"\w+", text))
    package = types.ModuleType("lm_eval.tasks.ifeval")
    package.instructions_util = util
    sys.modules.update({"langdetect": langdetect, "lm_eval": types.ModuleType("lm_eval"),
                        "lm_eval.tasks": types.ModuleType("lm_eval.tasks"), "lm_eval.tasks.ifeval": package,
                        "lm_eval.tasks.ifeval.instructions_util": util})


WORDS = ("the a an answer is yes no cat dog river seven blue Über naïve and of to in on at step then therefore so we get "
         "thus final total apples each costs number sum equals minus plus π café mother-in-law don't U.S. e.g. x y").split()


def prose(n):
    text = ""
    for _ in range(n):
        text += R.choice(WORDS) + R.choice([" ", " ", " ", " ", ", ", ".\n", "; ", "  "])
    return text


def gsm8k_cases(scorer):
    for _ in range(110):
        n = R.choice([R.randint(0, 99), R.randint(100, 10**6), -R.randint(1, 50)])
        label = str(n)
        given = R.choice([n, n, n + 1, n * 10])
        text = R.choice([str(given), f"{given:,}"])
        tail = R.choice(["", "\n", "\n\n", "\nThat is all"])
        response = prose(R.choice([0, 0, 2, 3, 5, 5, 60])) + R.choice([
            f"\n#### {text}", f"\n#### {text}", f"so {text}", f"#### {R.randint(0, 9)}\n#### {text}", f"the result {text} ",
            f"#### {text}\n" + prose(R.choice([3, 90])), f"12 and {text}", "no number", "####", "#### x"]) + tail
        for method in ("strict", "flexible"):
            found = scorer.extract_solution(response, method)
            if found is not None and (not re.search(r"\d", found) or "," in found):
                continue  # flexible takes a comma at the end for a number and keeps those inside of one
            score = scorer.compute_score(response, label, method=method)
            yield "gsm8k", {"method": method}, response, label, None, float(score)


def dapo_cases(scorer):
    for _ in range(170):
        n = R.choice([R.randint(0, 99), R.randint(100, 10**6), -R.randint(1, 50)])
        label = R.choice([str(n), str(n), f"{n}.0"])
        g = R.choice([n, n, n, n + 1])
        answer = R.choice([
            f"{g}", f"${g}$", f"\\boxed{{{g}}}", f"$\\boxed{{{g}}}$", f"{g:,}", f"x = {g}", f"{g}.", f"\\text{{{g}}}", f"{g} units",
            f"{g} \\text{{ cm}}", f"{g}^\\circ", f"{g} dollars", f"\\frac{{{g}}}{{1}}", f"\\frac12", f"\\sqrt{{{g}}}", f"\\sqrt4",
            f"${g}$ and ${g + 1}$", f"an {g}", f"{g} squares", f"\\textbf{{{g}}}", f"\\overline{{{g}}}", f"{g}\\,", f"{g}{{,}}000",
            f"{g}\\!", f"  {g}  ", f"{g}<|im_end|>", f"\"{g}\"", f"\\$ {g}", f"{g}%", "", " ", f"Answer: {g}", f"\\mbox{{{g}}}",
            f"{g}\\text{{m}}", f"{g}\\ldots", f"a {g} and a {g}"])
        lead = R.choice(["Answer:", "answer :", "Answer: ", "Answer: ", "ANSWER:\n", "The answer is", "Answer", "Final Answer: "])
        response = prose(R.choice([0, 0, 0, 2, 2, 3, 5, 60])) + R.choice(["", "", f"Answer: {R.randint(0, 9)}\n"]) + lead + answer
        response += R.choice(["", "", "\n", "\nmore words", *([" " + prose(70)] if R.random() < 0.1 else [])])
        score = scorer.compute_score(response, label)["score"]
        yield "dapo", {}, response, label, None, float(score)
        boxed = R.choice([f"\\boxed{{{g}}}", f"\\boxed{{{g}", f"\\boxed{{\\frac{{1}}{{{g}}}}}", "nothing"])
        response = prose(R.randint(0, 5)) + boxed + R.choice(["", ".", prose(R.choice([0, 2, 30]))])
        score = scorer.compute_score(response, label, strict_box_verify=True)["score"]
        yield "dapo", {"strict_box": True}, response, label, None, float(score)


def f1_cases(scorer):
    for _ in range(90):
        label = R.choice([prose(R.randint(1, 8)), "yes", "no", "noanswer", "The cat", "a", "Ünï-cödé “a” the—an", "x"]).strip() or "x"
        response = R.choice([prose(R.randint(0, 14)), label, label.upper(), "Yes.", "no", "“the” a cat", label + " " + prose(2), "\u00a0a\u2003b"])
        yield "f1", {}, response, label, None, float(scorer.f1_score(response, label)[0])


def ifeval_text():
    kind = R.randint(0, 9)
    lines = []
    for _ in range(R.randint(1, 8)):
        lines.append(R.choice(["* ", "- ", "  * ", "", "", "** ", "*bold* ", "**very** ", "Section 1 ", "SECTION 2\n", "[name] ", "<<Title>> ",
                               "P.S. ", "p. s. ", "***", "***\n", "******", "\n\n", "<< >>", "* *", "[a [b] c] "]) + prose(R.randint(0, 6)))
    text = R.choice(["\n", "\n\n", " "]).join(lines)
    if kind == 0:
        text = f'"{text}"'
    elif kind == 1:
        text = text.upper()
    elif kind == 2:
        text = text.lower()
    elif kind == 3:
        text = R.choice(['{"a": 1}', "```json\n[1, 2]\n```", "```\n{\n```", "[1,]", "17", "```JSON\n{}```"])
    elif kind == 4:
        text = R.choice(["My answer is yes.", "I say: My answer is maybe. ", "My answer is no"])
    elif kind == 5:
        text = f"one two******{R.choice(['one two', 'three', ''])}" + R.choice(["", "******", "******x"])
    elif kind == 6:
        text = text + R.choice([" the end.", ' THE END."', " the end. "])
    return text


def ifeval_cases(lib):
    relation = lambda: R.choice(["at least", "less than"])
    rules = {
        "keywords:existence": (lib.KeywordChecker, lambda: {"keywords": R.sample(["cat", "Dog", "seven", "zebra"], R.randint(1, 2))}),
        "keywords:forbidden_words": (lib.ForbiddenWords, lambda: {"forbidden_words": R.sample(["cat", "a", "zebra", "mother"], R.randint(1, 2))}),
        "keywords:frequency": (lib.KeywordFrequencyChecker, lambda: {"keyword": R.choice(["cat", "an", "the"]), "frequency": R.randint(1, 3), "relation": relation()}),
        "keywords:letter_frequency": (lib.LetterFrequencyChecker, lambda: {"letter": R.choice("aeStz"), "let_frequency": R.randint(1, 12), "let_relation": relation()}),
        "length_constraints:number_words": (lib.NumberOfWords, lambda: {"num_words": R.randint(1, 40), "relation": relation()}),
        "length_constraints:number_paragraphs": (lib.ParagraphChecker, lambda: {"num_paragraphs": R.randint(1, 3)}),
        "length_constraints:nth_paragraph_first_word": (lib.ParagraphFirstWordCheck, lambda: {"num_paragraphs": R.randint(1, 3), "nth_paragraph": 1, "first_word": R.choice(WORDS)}),
        "detectable_content:number_placeholders": (lib.PlaceholderChecker, lambda: {"num_placeholders": R.randint(1, 3)}),
        "detectable_content:postscript": (lib.PostscriptChecker, lambda: {"postscript_marker": "P.S."}),
        "detectable_format:number_bullet_lists": (lib.BulletListChecker, lambda: {"num_bullets": R.randint(0, 3)}),
        "detectable_format:number_highlighted_sections": (lib.HighlightSectionChecker, lambda: {"num_highlights": R.randint(1, 3)}),
        "detectable_format:multiple_sections": (lib.SectionChecker, lambda: {"section_spliter": R.choice(["Section", "SECTION"]), "num_sections": R.randint(1, 2)}),
        "detectable_format:title": (lib.TitleChecker, dict),
        "detectable_format:json_format": (lib.JsonFormat, dict),
        "detectable_format:constrained_response": (lib.ConstrainedResponseChecker, dict),
        "combination:two_responses": (lib.TwoResponsesChecker, dict),
        "combination:repeat_prompt": (lib.RepeatPromptThenAnswer, lambda: {"prompt_to_repeat": R.choice(["* ", "one two", "my answer"])}),
        "startend:end_checker": (lib.EndChecker, lambda: {"end_phrase": "The end."}),
        "startend:quotation": (lib.QuotationChecker, dict),
        "change_case:english_capital": (lib.CapitalLettersEnglishChecker, dict),
        "change_case:english_lowercase": (lib.LowercaseLettersEnglishChecker, dict),
        "punctuation:no_comma": (lib.CommaChecker, dict),
    }
    for name, (checker, arguments) in rules.items():
        for _ in range(13):
            kwargs, response = arguments(), ifeval_text()
            if not response.strip():
                continue
            instruction = checker(name)
            instruction.build_description(**kwargs)
            score = float(bool(instruction.check_following(response)))
            yield "instructions", {}, response, "", {"instruction_id_list": [name], "kwargs": [kwargs]}, score


def main():
    folder, output = sys.argv[1:]
    stub_ifeval()
    cases = list(gsm8k_cases(load(folder, "gsm8k"))) + list(dapo_cases(load(folder, "math_dapo_utils")))
    cases += list(f1_cases(load(folder, "f1"))) + list(ifeval_cases(load(folder, "ifeval")))
    with open(output, "w", encoding="utf-8") as file:
        for reward, options, response, label, metadata, score in cases:
            case = {"reward": reward, "options": options, "response": response, "label": label, "score": score}
            if metadata:
                case["metadata"] = metadata
            file.write(json.dumps(case, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
