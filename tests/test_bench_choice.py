"""Option letters: the published rule, the clean one, Chinese forms, no letter luckier."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cof.analyse.scores import notes
from cof.bench import mmbench, vstar
from cof.bench.common.choice import LETTERS, extract
from cof.types import Question

RULES = ("vlmevalkit", "clean")
TEXTS = ("an apple", "black", "the cat", "dog")

LETTER_TEMPLATES = [
    *("{l}", "{l}.", "({l})", "{l})", "**{l}**", "{l}:", "[{l}]", "{l}!", "# {l}"),
    *("The correct option is {l}.", "The answer is {l}", "Answer: {l}", "answer is: ({l})"),
    *("Option {l} is right.", "I think it is {l}.", "{l} is correct", "So the option is {l}, yes."),
    "The correct answer is {l} because of what a careful look at the whole picture shows me",
    *("\u7b54\u6848\uff1a{l}", "\u7b54\u6848\u662f{l}", "{l}\u3002", "\uff08{l}\uff09"),
    *(
        "\u6211\u9009{l}",
        "\u6b63\u786e\u7b54\u6848\u4e3a{l}\u3002",
        "\u9009\u9879{l}\u662f\u5bf9\u7684",
        "{l}\u9009\u9879",
        "{l}\u3001{t}",
        "{l}\uff1a{t}",
    ),
    *("{l}. {t}", "({l}) {t}", "{l}: {t}", "The answer is ({l}) {t}."),
]
TEXT_TEMPLATES = [
    "{t}",
    "It is {t}.",
    "The answer is {t}.",
    "A {t}.",
    "A picture of {t}.",
    "I see {t}",
]


def right(template, rule, texts=TEXTS):
    """How often answers of one form are read rightly, for each right letter, over all rotations."""
    counts = dict.fromkeys("ABCD", 0)
    for turn in range(4):
        options = texts[turn:] + texts[:turn]
        for letter, text in zip("ABCD", options, strict=True):
            said = template.format(l=letter, t=text)
            counts[letter] += extract(said, options, rule) == letter
    return list(counts.values())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("template", LETTER_TEMPLATES)
def test_an_answer_that_names_its_letter_is_read_whichever_letter_is_right(template, rule):
    assert right(template, rule) == [4] * 4


@pytest.mark.parametrize("template", TEXT_TEMPLATES)
def test_the_clean_rule_takes_no_word_for_a_letter(template):
    assert right(template, "clean") == [4] * 4


@given(
    st.lists(
        st.sampled_from(["the", "option", "answer", "is", "it", "not", ".", ",", "(", ")", "so"]),
        max_size=9,
    ),
    st.integers(0, 9),
    st.sampled_from(RULES),
)
def test_any_template_is_read_alike_for_all_letters(words, place, rule):
    template = " ".join([*words[:place], "{l}", *words[place:]])
    options = ("wer", "xyz", "qrs", "uvw")  # no word of the template
    assume(rule == "clean" or "answer is a" not in template)  # published: that is A
    assert len(set(right(template, rule, options))) == 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Z",
        "A and B",
        "A or B.",
        "none",
        "\u9009A\u6216\u8005\u9009B",
        "I cannot tell",
        None,
        "E",
    ],
)
def test_what_names_no_single_option_is_unresolved(answer, rule):
    assert extract(answer, TEXTS, rule) == "Z"


def published(answer, options):
    """VLMEvalKit's matching without judge and VERBOSE, the slow, obvious way."""
    letters = dict(zip(LETTERS, options, strict=False))
    for sorry in ("Sorry, I can't help with images of people yet.", "Cannot determine the answer"):
        if sorry in answer:
            return "Z"
    spaced = "".join(" " if sign in ".()[],:;!*#{}" else sign for sign in answer)
    words = [word for word in spaced.split() if word]
    present = [letter for letter in letters if words.count(letter)]
    if len(present) == 1:
        first = min(place for place, word in enumerate(words) if word == present[0])
        if first > len(words) - 5:
            return present[0]
    elif not present and "Z" in words:
        return "Z"
    said = re.compile(r"answer\s+is\s+\**[abcd]", re.I).search(answer)
    if said and said[0][-1].upper() in letters:
        return said[0][-1].upper()
    low = answer.lower()
    if len(low) <= 2 * sum(map(len, options)):
        found = [letter for letter, option in letters.items() if option.lower() in low]
        if len(found) == 1:
            return found[0]
    return "Z"


WORDS = [
    *("A", "B", "C", "D", "E", "Z", "a", "b", "the", "answer", "Answer", "is", "IS", "correct"),
    *("dog", "apple", "*B*", "(C)", "D.", "and,", "black", "cat"),
]


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.integers(2, 4))
def test_the_default_is_the_published_rule(words, count):
    answer = " ".join(words)
    assert extract(answer, TEXTS[:count]) == published(answer, TEXTS[:count])


def test_answers_of_either_rule_are_told_apart_in_the_scores():
    question = Question("1", "i", "?", reference="A", options=TEXTS, category="direct_attributes")
    said = ["The answer is black."]
    for bench, part in ((mmbench, "vanilla"), (vstar, "overall")):
        options = {"root": ""}
        default = bench.score([question], said, bench.Config(**options))
        clean = bench.score([question], said, bench.Config(**options, extract="clean"))
        assert (default["extract"], clean["extract"]) == ("vlmevalkit", "clean")
        assert default["disputed"] == clean["disputed"] == 0  # B, and B by its text
        assert part in default
    question = Question(
        "1", "i", "?", reference="C", options=("yellow", "green", "black"), category=""
    )
    assert mmbench.credit(question, said[0]) == 0  # published: `answer is b`
    assert mmbench.credit(question, said[0], mmbench.Config("", extract="clean")) == 1
    assert vstar.credit(question, said[0], vstar.Config("", extract="clean")) == 1
    scores = mmbench.score([question], said)
    assert scores["disputed"] == 1
    assert notes(scores) == notes({"cof": scores}) != []
