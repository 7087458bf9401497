"""Gradients of our own metrics on photographs."""

ALIVE = {  # the share of samples that must have a gradient, where it is less than a third
    "loe": 1e-4,  # the maxima of neighborhoods alone are read
    "loe-lime": 1e-4,
    "niqe": 0.29,  # 0.299 on the half black picture
}


def test_a_third_of_the_samples_has_a_gradient(subject):
    for kind in ("picture", "dim", "dark", "dark in 8 bits", "dark in 16 bits", "near black", "half black", "clipped"):
        found = subject.gradient(subject.pictures()[kind][None])
        assert found.count_nonzero() >= ALIVE.get(subject.name, 0.3) * found.numel(), kind
