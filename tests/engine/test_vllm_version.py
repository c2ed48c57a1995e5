"""Which vLLM is taken; needs none."""

import pytest

from lightning_mem1.engine.vllm_version import check_version


@pytest.mark.parametrize("found", ["0.29.0", "0.33.0", "1.0", "0.30.1rc2+cu129", None])
def test_a_version_that_is_new_enough_or_a_build_without_one_is_taken(found):
    check_version(found)


@pytest.mark.parametrize("found", ["0.1.2", "0.9.9", "0.28.0", "0.29.0rc1"])
def test_an_older_one_is_named_with_what_to_install(found):
    with pytest.raises(ValueError, match=f"vLLM is too old: expected 0.29 or newer, got {found}; pip install -c const"):
        check_version(found)
