"""Sections that all ranks run together: whoever fails wherever, nobody waits and everybody knows."""

import time

import pytest
import torch
import torch.distributed as dist

from lightning_saturation.covariance import ranks, reduction
from lightning_saturation.covariance.covariance import Covariance
from lightning_saturation.covariance.ranks import LOCAL, RankError, all_reduce, broadcast, gather, pass_on, together
from lightning_saturation.covariance.sketch import add_to_sketch, empty_sketch
from lightning_saturation.saturation.measure import measure_saturation
from tests.distributed.ranks import error_on_each, on_ranks

WORLDS = pytest.mark.parametrize("world", [2, 3])
STEPS = ("all_reduce", "gather", "broadcast", "pass_on", "gather again")
PATIENCE = 10.0


def talk(step, rank, world):
    """One call of each kind, of which ranks would hang if they met with different ones."""
    if step == "all_reduce":
        return all_reduce(torch.tensor([rank + 1.0])).item()
    if step.startswith("gather"):
        return gather({"rank": rank})
    if step == "broadcast":
        return broadcast(torch.full((3,), float(rank)), world - 1).tolist()
    received = pass_on(torch.tensor([7.0 * rank]), to=0 if rank == 1 else None, source=1 if rank == 0 else None)
    return None if received is None else received.item()


def right(rank, world):
    everyone = [{"rank": other} for other in range(world)]
    received = 7.0 if rank == 0 else None
    return [world * (world + 1) / 2, everyone, [world - 1.0] * 3, received, everyone]


def section(rank, world, failing):
    """Return what the section gave on this rank; ``failing`` says before which step which ranks fail."""
    given = []
    with together():
        for index, step in enumerate(STEPS):
            if failing.get(rank) == index:
                raise ValueError(f"no {step} here")
            given.append(talk(step, rank, world))
        if failing.get(rank) == len(STEPS):
            raise ValueError("no end here")
    return given


def outcome(rank, world, failing):
    start = time.monotonic()
    try:
        told = section(rank, world, failing)
    except Exception as error:
        told = type(error), str(error), repr(error.__cause__)
    return told, section(rank, world, {}), time.monotonic() - start


@WORLDS
def test_without_a_failure_the_section_is_as_if_it_were_not_there(world):
    def job(rank):
        return section(rank, world, {}), [talk(step, rank, world) for step in STEPS]

    for rank, results in enumerate(on_ranks(world, job, timeout=PATIENCE)):
        assert results == (right(rank, world),) * 2


def each(world, failures):
    """Yield each of ``failures`` with the outcomes of all ranks; the processes are the same for all of them."""
    results = on_ranks(world, lambda rank: [outcome(rank, world, failing) for failing in failures], timeout=PATIENCE)
    return zip(failures, zip(*results, strict=True), strict=True)


@pytest.mark.parametrize(("world", "failed"), [(world, rank) for world in (2, 3) for rank in range(world)])
def test_one_rank_that_fails_is_known_to_all_and_the_next_section_works(world, failed):
    for failing, results in each(world, [{failed: step} for step in range(len(STEPS) + 1)]):
        text = f"no {(*STEPS, 'end')[failing[failed]]} here"
        for rank, ((kind, message, cause), after, seconds) in enumerate(results):
            assert (kind, message) == (RankError, f"Rank {failed} failed: ValueError: {text}")
            assert cause == (f"ValueError('{text}')" if rank == failed else "None")
            assert after == right(rank, world)
            assert seconds < PATIENCE / 2


def test_of_two_that_would_fail_the_earlier_one_ends_the_section():
    for failing, results in each(3, [{0: 1, 2: 3}, {2: 0, 1: 4}, {0: 5, 1: 2}]):
        first = min(failing, key=failing.__getitem__)
        for rank, ((kind, message, _), after, _) in enumerate(results):
            assert (kind, message) == (RankError, f"Rank {first} failed: ValueError: no {STEPS[failing[first]]} here")
            assert after == right(rank, 3)


def test_two_that_fail_before_the_same_call_are_both_named():
    for failing, results in each(3, [{0: step, 2: step} for step in (0, 2, 5)]):
        text = f"ValueError: no {(*STEPS, 'end')[failing[0]]} here"
        for (kind, message, cause), _, _ in results:
            assert (kind, message) == (RankError, f"Rank 0 failed: {text}; Rank 2 failed: {text}")
            assert cause in ("None", f"ValueError('{text.removeprefix('ValueError: ')}')")


@WORLDS
def test_where_all_fail_alike_each_raises_its_own_error(world):
    for failing, results in each(world, [dict.fromkeys(range(world), step) for step in (0, 3, 5)]):
        for (kind, message, cause), _, _ in results:
            assert (kind, message, cause) == (ValueError, f"no {(*STEPS, 'end')[failing[0]]} here", "None")


def test_where_all_fail_each_in_its_way_all_are_named():
    def job(rank):
        with together():
            raise KeyError(rank) if rank else OSError("full")

    assert (
        error_on_each(2, job, timeout=PATIENCE)
        == ["RankError: Rank 0 failed: OSError: full; Rank 1 failed: KeyError: 1"] * 2
    )


def test_a_section_within_another_is_part_of_it():
    def job(rank):
        met = []

        def outer():
            with together():
                with together():
                    met.extend(gather(rank))
                    if rank == 1:
                        raise ValueError("inside")
                met.extend(gather(rank))

        with pytest.raises(RankError, match="Rank 1 failed: ValueError: inside"):
            outer()
        return met

    assert on_ranks(2, job, timeout=PATIENCE) == [[0, 1], [0, 1]]


def test_an_error_caught_inside_is_no_failure_and_one_of_the_others_cannot_be_caught_away():
    def job(rank):
        with together():
            try:
                raise ValueError("mine") if rank else None
            except (ValueError, TypeError):
                pass
            own = gather(rank)
        swallowed = []

        def try_to_go_on():
            with together():
                if rank == 1:
                    raise ValueError("late")
                for _ in range(2):
                    with pytest.raises(RankError) as caught:
                        gather(rank)
                    swallowed.append(str(caught.value))

        with pytest.raises(RankError, match=late):
            try_to_go_on()
        return own, swallowed, gather("after")

    late = "Rank 1 failed: ValueError: late"
    assert on_ranks(2, job, timeout=PATIENCE) == [([0, 1], [late] * 2, ["after"] * 2), ([0, 1], [], ["after"] * 2)]


def test_calls_to_other_groups_take_part_in_no_handshake():
    def job(rank):
        pairs = dist.new_group([0, 1])
        with together():
            within = gather(rank, pairs) if rank < 2 else None  # the third rank makes no such call
            everyone = gather(rank)
        with together(dist.group.WORLD):
            return within, everyone, gather(rank)

    everyone = [0, 1, 2]
    pair = ([0, 1], everyone, everyone)
    assert on_ranks(3, job, timeout=PATIENCE) == [pair, pair, (None, everyone, everyone)]


def test_what_cannot_be_sent_is_a_failure_like_any_other():
    def job(rank):
        with together():
            gather((lambda: None) if rank else None)

    (message,) = set(error_on_each(2, job, timeout=PATIENCE))
    assert message.startswith("RankError: Rank 1 failed: ")
    assert "lambda" in message


def test_an_interrupt_is_not_told_to_the_others():
    def job(rank):
        asked = []
        ask = ranks._Section.ask
        ranks._Section.ask = lambda self, own: (asked.append(own), ask(self, own))
        with pytest.raises(KeyboardInterrupt), together():
            raise KeyboardInterrupt
        return asked, ranks._current.get()

    assert on_ranks(2, job, timeout=PATIENCE) == [([], None)] * 2


def test_one_process_and_one_rank_alone_need_nobody():
    with pytest.raises(ValueError, match="mine"), together():
        raise ValueError("mine")
    assert gather(3) == [3]

    def job(rank):
        with together(LOCAL):
            if rank:
                raise ValueError("alone")
            return gather(rank, LOCAL), all_reduce(torch.ones(1), LOCAL).item()

    with pytest.raises(Exception, match="ValueError: alone"):
        on_ranks(2, job, timeout=2)


@pytest.mark.parametrize("failed", [0, 2])
def test_sketches_that_cannot_be_merged_on_one_rank_end_the_tree_on_all(failed):
    def job(rank):
        merge = reduction.merge_sketches

        def merging(*parts):
            if rank == failed:
                raise MemoryError("no room")
            return merge(*parts)

        reduction.merge_sketches = merging
        rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(rank))
        own, _ = add_to_sketch(empty_sketch(6, size=3), rows)
        with together():
            reduction.merge_over_ranks({"a": own}, {"a": 6}, {"a": 3})

    # Of four ranks, 0 merges in both rounds and 2 in the first.
    assert set(error_on_each(4, job, timeout=PATIENCE)) == {f"RankError: Rank {failed} failed: MemoryError: no room"}


def test_a_metric_and_a_measurement_that_fail_on_one_rank_fail_on_all():
    def metric(rank):
        covariance = Covariance()
        covariance.update(torch.randn(5, 3))
        if rank == 1:
            covariance.moments = lambda: 1 / 0
        covariance.compute()

    def measured(rank):
        model = torch.nn.Linear(3, 2)
        batches = [torch.randn(4, 3 if rank == 0 else 5)]
        measure_saturation(model, batches, progress=False, process_group=dist.group.WORLD)

    assert set(error_on_each(2, metric, timeout=PATIENCE)) == {
        "RankError: Rank 1 failed: ZeroDivisionError: division by zero"
    }
    (message,) = set(error_on_each(2, measured, timeout=PATIENCE))
    assert message.startswith("RankError: Rank 1 failed: RuntimeError: mat1 and mat2 shapes cannot be multiplied")
