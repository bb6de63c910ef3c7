import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from audioml.decode import thread_pool
from audioml.threads import one_thread_an_operation


@pytest.fixture
def two_threads():
    """Some count other than one, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def count_threads():
    """Say how many ATen, OpenMP and MKL would take in the thread that asks."""
    info = torch.__config__.parallel_info()
    return re.findall(r"(?:at::get_num|omp_get_max|mkl_get_max)_threads\(\) : (\d+)", info)


def test_operations_take_one_thread_until_the_end(two_threads):
    with one_thread_an_operation() as n_threads, ThreadPoolExecutor(2) as pool:
        assert n_threads == 2
        assert torch.get_num_threads() == 1
        assert list(pool.map(lambda _: torch.get_num_threads(), range(8))) == [1] * 8
    assert torch.get_num_threads() == 2


def test_threads_come_back_after_an_error(two_threads):
    with pytest.raises(KeyError), one_thread_an_operation():
        raise KeyError
    assert torch.get_num_threads() == 2


def test_the_threads_of_a_decoding_pool_keep_to_one_and_no_others(two_threads):
    before = count_threads()
    with ThreadPoolExecutor(1) as earlier, ThreadPoolExecutor(1) as later:
        assert earlier.submit(count_threads).result() == before
        with thread_pool(3) as pool:
            counts = list(pool.map(lambda _: set(count_threads()), range(9)))
            assert counts == [{"1"}] * 9
            assert count_threads() == before
            assert earlier.submit(count_threads).result() == before
            assert later.submit(count_threads).result() == before
