"""The paper's studies at a scale of seconds: every kind of study, and going on after a kill."""

import json

import matplotlib.pyplot as plt
import pytest

from examples.paper.figures import draw
from examples.paper.studies.run import Bench, find, studies

SIZES = ("as it is", "suggested", "scaled to the size of the suggested", "doubled", "halved")
WIDTHS = ("0.0625", "0.125")
KINDS = {
    "toy": {"toy"},
    "pair_cat-dog_vgg11_0.0625": {"similarity", "whole", "directions", "distributed", "compression", "units"},
    "dynamics_cat-dog_vgg11_0.0625": {"dynamics", "classes"},
    "freezing_cat-dog_vgg11_0.0625": {"plain 0", "linear 0", "converged 0"},
    "widths_cat-dog_vgg11_0.0625": {f"cat-dog_vgg11_{width}_e2_b16_n60 0-1" for width in WIDTHS},
    "drop_cat-dog_vgg11_0.0625_e30_step": {"cat-dog_vgg11_0.0625_e2_b16_n60_step_s0"},
    "sizing_cat-dog_mlp_8": {"advice", *(f"{kind} 0" for kind in SIZES)},
    "pruned_cat-dog": {"pruned 0", "wide 0", "narrow 0"},
}

# 100 samples at this scale, for up to 64 directions
pytestmark = pytest.mark.filterwarnings("ignore:.*samples are too few for:UserWarning")


def test_there_is_a_slice_of_every_kind_of_study():
    assert len({study.name for study in studies()}) == len(studies())
    kinds = {find(name).kind for name in KINDS}
    # these two go through the same lines as "widths", on networks that take longer
    assert {study.kind for study in studies()} - kinds == {"memorising", "architectures"}


@pytest.mark.parametrize("name", KINDS)
def test_a_study_of_each_kind_leaves_a_whole_record(places, name):
    bench = Bench(find(name), places, scale="small")
    bench.answer()
    record = json.loads(bench.path.read_text(), parse_constant=pytest.fail)  # no NaN: not every reader takes it
    assert record["finished"]
    assert set(record["parts"]) == KINDS[name]
    assert bench.path.stat().st_size < 200_000
    for kind, picture in draw.STUDIES.values():
        if kind == record["kind"]:
            plt.close(picture(record))


def test_a_study_goes_on_where_it_was(places, monkeypatch):
    study = find("sizing_cat-dog_mlp_8")
    asked = []

    def part(self, name, find, whole=Bench.part):
        if len(self.record["parts"]) == 3 and not asked:
            asked.append(name)
            raise RuntimeError("killed")
        return whole(self, name, find)

    with monkeypatch.context() as patched:
        patched.setattr(Bench, "part", part)
        with pytest.raises(RuntimeError, match="killed"):
            Bench(study, places, scale="small").answer()
    before = json.loads((places.results / "studies" / f"{study.name}.json").read_text())
    assert len(before["parts"]) == 3
    assert not before["finished"]
    after = Bench(study, places, scale="small").answer()
    assert after["finished"]
    assert before["parts"].items() <= after["parts"].items()
    assert {name: after["seconds_of"][name] for name in before["seconds_of"]} == before["seconds_of"]
