from unix.evaluation.examples import spread_over_findings
from unix.records import Labels, no_labels


def labelled(*present: str) -> Labels:
    return {**no_labels(), **dict.fromkeys(present, 1)}


def test_each_finding_comes_once_before_any_comes_twice() -> None:
    labels = [labelled("Edema")] * 20 + [labelled("Fracture"), labelled("No Finding")]
    keys = [f"k{index}" for index in range(len(labels))]
    chosen = spread_over_findings(keys, labels, 4)
    assert {20, 21} <= set(chosen) and len(set(chosen)) == 4


def test_the_choice_depends_on_keys_alone_and_fills_up() -> None:
    labels = [labelled("Edema"), labelled(), labelled(), labelled("Edema")]
    assert sorted(spread_over_findings(["a", "b", "c", "d"], labels, 10)) == [0, 1, 2, 3]
    forward = [("a", "b", "c", "d")[index] for index in spread_over_findings(["a", "b", "c", "d"], labels, 2)]
    backward = [("d", "c", "b", "a")[index] for index in spread_over_findings(["d", "c", "b", "a"], labels[::-1], 2)]
    assert forward == backward
