"""A teacher follows a network in fp32, whatever the precision of the run."""

import pytest
import torch
from torch import nn

from ray_mae.methods.parts.teacher import Teacher, momentum_at

TAKEN, SKIPPED = torch.tensor(True), torch.tensor(False)


class Network(nn.Module):
    """With a layer, a running statistic and a part that drops in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(self.layer(x)))


def moved(network: nn.Module, by: float = 1.0) -> nn.Module:
    with torch.no_grad():
        for p in network.parameters():
            p.add_(by)
    return network


def test_it_begins_as_the_equal_of_its_source_and_shares_nothing_with_it() -> None:
    torch.manual_seed(0)
    source = Network().eval()
    teacher, x = Teacher(source), torch.randn(5, 4)
    before = source(x)
    assert torch.equal(teacher(x), before)
    moved(source)
    assert torch.equal(teacher(x), before)
    assert list(teacher.parameters()) == []
    assert teacher.network.state_dict().keys() == source.state_dict().keys()


def test_it_gives_no_gradient_and_drops_nothing_in_training() -> None:
    teacher, x = Teacher(Network()), torch.randn(5, 4, requires_grad=True)
    whole = nn.Sequential(teacher)
    whole.train()
    assert not any(module.training for module in teacher.modules())
    assert not teacher(x).requires_grad
    assert torch.equal(teacher(x), teacher(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_a_source_that_stays_m_to_the_n_is_left_of_where_it_began(dtype: torch.dtype) -> None:
    """In bf16 it would stand still: 1 + 0.004 is 1 there."""
    source = Network()
    nn.init.ones_(source.layer.weight)
    teacher = Teacher(source)
    whole = nn.ModuleList([source, teacher]).to(dtype)
    moved(source)  # to 2, which bf16 has exactly
    for _ in range(50):
        teacher.follow(source, 0.996, TAKEN)
    weight = whole.get_buffer("1.network.layer.weight")
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, torch.full_like(weight, 2 - 0.996**50))


def test_a_momentum_of_0_copies_its_source_and_1_leaves_it_to_the_bit() -> None:
    source = Network()
    teacher = Teacher(source)
    before = {n: b.clone() for n, b in teacher.network.named_parameters()}
    moved(source, 0.3)
    teacher.follow(source, 1.0, TAKEN)
    assert all(torch.equal(teacher.network.get_buffer(n), b) for n, b in before.items())
    teacher.follow(source, 0.0, TAKEN)
    for name, p in source.named_parameters():
        torch.testing.assert_close(teacher.network.get_buffer(name), p.data)


def test_running_statistics_are_copied_and_not_averaged() -> None:
    source = Network().train()
    teacher = Teacher(source)
    source(torch.randn(8, 4) + 3)
    teacher.follow(source, 0.9, TAKEN)
    for name, buffer in source.named_buffers():
        assert torch.equal(teacher.network.get_buffer(name), buffer)
    assert int(teacher.network.get_buffer("norm.num_batches_tracked")) == 1


def test_a_skipped_step_changes_nothing_to_the_bit() -> None:
    source = Network().train()
    teacher = Teacher(source)
    before = {n: b.clone() for n, b in teacher.state_dict().items()}
    source(torch.randn(8, 4) * torch.nan)  # its statistics are not finite
    moved(source)
    teacher.follow(source, 0.5, SKIPPED)
    assert all(torch.equal(teacher.state_dict()[n], b) for n, b in before.items())


def test_it_computes_in_the_precision_of_the_run() -> None:
    source = nn.Linear(4, 3)
    teacher, x = Teacher(source), torch.randn(5, 4)
    assert teacher(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):  # DDP's bf16
        assert teacher(x).dtype == torch.bfloat16
    nn.Sequential(teacher).bfloat16()  # DeepSpeed's
    assert teacher(x.bfloat16()).dtype == torch.bfloat16


def test_the_momentum_rises_over_all_of_the_run() -> None:
    values = [momentum_at(step, 100, 0.996) for step in range(101)]
    assert values[0] == pytest.approx(0.996)
    assert values[50] == pytest.approx(0.998)
    assert values[100] == momentum_at(101, 100, 0.996) == 1
    assert values == sorted(values)
