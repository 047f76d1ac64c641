"""What is off is told, whatever hides behind it."""

from __future__ import annotations

import numpy as np
import pytest

from export.apart import HIDES, apart


def test_a_difference_is_a_share_of_the_largest_value() -> None:
    wanted = np.array([0.0, -4.0, 2.0])
    assert apart(wanted + [0, 0, 0.5], wanted, 1e-9) == pytest.approx(0.5 / 4)
    assert apart(wanted + [0, 0, 0.5], wanted, 1e-9, scale=1.0) == 0.5
    assert apart(wanted * 1e-6 + 1e-3, wanted * 1e-6, least=1e-2) == pytest.approx(0.1)
    assert apart(wanted, wanted, 1e-9) == 0


def test_what_hides_a_token_is_no_scale_and_has_to_be_in_its_place() -> None:
    hides = np.array([-10 * HIDES, 1.0, 2.0], np.float32)
    assert apart(hides * np.float32(0.5), hides, 1e-9) == 0.5  # however far it hides
    assert apart(hides[[1, 0, 2]], hides, 1e-9) == np.inf


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_as_far_as_can_be(wrong: float) -> None:
    wanted = np.array([1.0, 2.0])
    assert apart(np.array([1.0, wrong]), wanted, 1e-9) == np.inf
