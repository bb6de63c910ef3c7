from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from audioml.threads import one_thread_an_operation


def test_operations_take_one_thread_until_the_end():
    before = torch.get_num_threads()
    with one_thread_an_operation() as n_threads, ThreadPoolExecutor(2) as pool:
        assert n_threads == before
        assert torch.get_num_threads() == 1
        assert list(pool.map(lambda _: torch.get_num_threads(), range(8))) == [1] * 8
    assert torch.get_num_threads() == before


def test_threads_come_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread_an_operation():
        raise KeyError
    assert torch.get_num_threads() == before
