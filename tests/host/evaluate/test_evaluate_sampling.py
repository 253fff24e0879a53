"""A limited choice of pictures keeps the classes' shares and is the same every time."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edgevision.host.dataset.base import Box, Dataset, Sample
from edgevision.host.evaluate.sampling import choose


def dataset(labels):
    samples = tuple(
        Sample(name=f"{number:03}", path=Path(f"{number:03}"), width=9, height=9, label_id=label)
        for number, label in enumerate(labels)
    )
    return Dataset(source=Path("x"), format="folders", task="classification", labels=tuple("abcdef"), samples=samples)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 9))
def test_a_choice_is_of_the_size_asked_for_and_fair(labels, limit, seed):
    data = dataset(labels)
    chosen = choose(data, limit, seed)
    assert len(chosen) == min(limit, len(labels))
    assert [sample.name for sample in chosen] == sorted(sample.name for sample in chosen)
    assert chosen == choose(data, limit, seed)
    whole, part = Counter(labels), Counter(sample.label_id for sample in chosen)
    if limit >= len(whole):
        assert set(part) == set(whole)
    for label, count in whole.items():
        exact = count * len(chosen) / len(labels)
        assert part[label] <= max(1, exact + 1)


def test_another_seed_chooses_others():
    data = dataset([0] * 50 + [1] * 50)
    assert choose(data, 10, 0) != choose(data, 10, 1)
    assert Counter(sample.label_id for sample in choose(data, 10, 1)) == {0: 5, 1: 5}


def test_pictures_with_boxes_are_chosen_by_their_rarest_class():
    def sample(number, *labels):
        boxes = tuple(Box(label_id=label, xyxy=(0, 0, 1, 1)) for label in labels)
        return Sample(name=str(number), path=Path(str(number)), width=9, height=9, boxes=boxes)

    samples = (sample(0, 0, 1), *(sample(number, 0) for number in range(1, 9)), sample(9))
    data = Dataset(source=Path("x"), format="coco", task="detection", labels=("a", "b"), samples=samples)
    chosen = {item.name for item in choose(data, 3, 0)}
    assert {"0", "9"} < chosen
