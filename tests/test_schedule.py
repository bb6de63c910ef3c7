import pytest
import torch
from torch import nn

from audioml.schedule import averaging_decay, lr_factor


def test_averaging_warms_up():
    assert [averaging_decay(step, 0.99) for step in (0, 8, 10**6)] == [0.1, 0.5, 0.99]


def test_cosine_equals_torchs_schedule_after_a_linear_warm_up():
    n, warm = 100, 0.1
    factors = [lr_factor(step, n, "cosine", warm) for step in range(n)]
    assert factors[:10] == pytest.approx([(k + 1) / 11 for k in range(10)])
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    for factor in factors[10:]:
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        scheduler.step()


def test_one_cycle_equals_torchs():
    n, rising = 101, 0.3
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=n, pct_start=rising, div_factor=25, final_div_factor=1e9
    )
    for step in range(n - 1):
        # torch turns at rising * n - 1, ours at rising * n: one step apart at most
        expected = optimizer.param_groups[0]["lr"]
        assert lr_factor(step, n, "one_cycle", rising) == pytest.approx(expected, abs=0.06)
        optimizer.step()
        scheduler.step()
    assert lr_factor(0, n, "one_cycle", rising) == pytest.approx(1 / 25)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant"])
@pytest.mark.parametrize("warmup_share", [0.0, 0.3])
def test_schedules_stay_within_bounds(schedule, warmup_share):
    factors = [lr_factor(step, 57, schedule, warmup_share) for step in range(57)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) > 0.95
    assert (factors[-1] == 1) == (schedule == "constant")
