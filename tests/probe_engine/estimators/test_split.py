"""Split estimate against scipy's own Welch interval and a search by hand."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import t as student
from scipy.stats import ttest_ind

from probe_engine.estimators.split import split_estimate, welch_df

ETA = 0.01
S = torch.tensor([0.3, -0.1, 0.8, 0.2, 0.5], dtype=torch.float64)
T = torch.tensor([0.1, 0.6, 0.25], dtype=torch.float64)


def test_split_in_numbers():
    result = split_estimate(S, T, ETA)
    assert (result.B_E, result.B_U) == (5, 3)
    assert result.mean_s == pytest.approx(0.34)
    assert result.sum_s == pytest.approx(1.7)
    assert result.sum_s2 == pytest.approx(1.03)
    assert result.delta_h1 == pytest.approx(ETA * 0.34)
    assert result.var_e == pytest.approx(ETA**2 * float(S.var()) / 5)
    assert result.var_u == pytest.approx(ETA**2 * float(T.var()) / 3)
    assert result.se == pytest.approx(math.sqrt(result.var_e + result.var_u))
    assert result.se_conditional == pytest.approx(math.sqrt(result.var_e))
    assert result.df == pytest.approx(ttest_ind(S, T, equal_var=False).df)
    half = student.ppf(0.975, result.df) * result.se
    assert result.ci95 == pytest.approx((result.delta_h1 - half, result.delta_h1 + half))


def test_prompts_needed_is_the_first_size_that_excludes_0():
    s, t = S - 0.3, T
    a, b = float(s.var()) / 5, float(t.var()) / 3

    def excludes(size: int) -> bool:
        scale = size / 8
        df = welch_df(a, 5 * scale, b, 3 * scale)
        return abs(float(s.mean())) > student.ppf(0.975, df) * math.sqrt((a + b) / scale)

    needed = split_estimate(s, t, ETA).prompts_needed
    assert needed == next(size for size in range(6, 10**5) if excludes(size))
    assert needed > 8


@pytest.mark.parametrize(("s", "t"), [(S[:1], T), (S, T[:1]), (S[:1], T[:1])])
def test_a_side_of_one_unit_has_no_interval(s, t):
    result = split_estimate(s, t, ETA)
    assert result.delta_h1 == pytest.approx(ETA * float(s.mean()))
    assert (result.se, result.df, result.ci95, result.prompts_needed) == (None,) * 4
    assert (result.var_e is None) == (result.se_conditional is None) == (len(s) == 1)
    assert (result.var_u is None) == (len(t) == 1)


def test_units_that_do_not_vary_have_no_interval():
    result = split_estimate(torch.zeros(4), torch.zeros(4), ETA)
    assert (result.delta_h1, result.se) == (0, 0)
    assert (result.df, result.ci95, result.prompts_needed) == (None,) * 3


def test_a_side_without_units_is_refused():
    with pytest.raises(ValueError, match="0 in E and 3 in U"):
        split_estimate(S[:0], T, ETA)
