"""Clips of gradients that are cut over gloo ranks: the numbers of one process, the same memory everywhere."""

import pytest
import torch
import torch.multiprocessing
from clip import clip_ranks

if not torch.distributed.is_available():
    pytest.skip("this torch has no distributed package", allow_module_level=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(clip_ranks.run, args=(2, str(folder)), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", clip_ranks.CLIPS)
def test_ranks_clip_as_one_process_does(found, name):
    parameters = [torch.nn.Parameter(t) for t in clip_ranks.weights()]
    one = clip_ranks.make(name, parameters)
    for step in range(clip_ranks.STEPS):
        for parameter, gradient in zip(parameters, clip_ranks.whole(step), strict=True):
            parameter.grad = gradient
        report = one(zip(clip_ranks.NAMES, parameters, strict=True))
        for of_rank in found:
            finite, before, after, cosine, gradients = of_rank[name][0][step]
            assert finite == report.finite == (step != clip_ranks.BAD)
            for given, expected in ((before, report.norm_before), (after, report.norm_after)):
                assert given == pytest.approx(expected, rel=1e-6, nan_ok=True)
            assert cosine == pytest.approx(report.cosine, rel=1e-6, nan_ok=True)
            for gradient, parameter in zip(gradients, parameters, strict=True):
                torch.testing.assert_close(gradient, parameter.grad, rtol=1e-6, atol=0, equal_nan=True)
    assert report.clipped


@pytest.mark.parametrize("name", clip_ranks.CLIPS)
def test_ranks_remember_the_same_bits(found, name):
    first, second = (of_rank[name][1] for of_rank in found)
    states = zip([*first["states"], first["counts"]], [*second["states"], second["counts"]], strict=True)
    for one, other in states:
        assert set(one) == set(other)
        assert all(one[key].numpy().tobytes() == other[key].numpy().tobytes() for key in one)


def test_entries_of_partial_sums_are_not_cut():
    dist = torch.distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial

    from unitygain import clip

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        parameter = torch.nn.Parameter(DTensor.from_local(torch.ones(2), mesh, [Partial()]))
        parameter.grad = DTensor.from_local(torch.tensor([3.0, 4.0]), mesh, [Partial()])
        with pytest.raises(ValueError, match="DTensor of partial sums, whose entries no rank knows"):
            clip.by_value(1.0)([parameter])
        assert clip.by_global_norm(1.0)([parameter]).norm_before == 5.0
        torch.testing.assert_close(parameter.grad.to_local(), torch.tensor([0.6, 0.8]))
    finally:
        dist.destroy_process_group()
