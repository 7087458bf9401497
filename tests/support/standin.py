"""Weights that anyone can regenerate, for parity with code whose checkpoints cannot be redistributed."""

import zlib

import numpy as np


def fill(shapes):
    """A float32 array for each key of {key: shape}, drawn from a generator seeded with the CRC-32 of the key."""
    return {key: tensor(key, tuple(shape)) for key, shape in shapes.items()}


def tensor(key, shape):
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    noise = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    if key.endswith("running_var"):
        return np.asarray(1 + 0.1 * np.abs(noise), np.float32)
    if key.endswith("running_mean"):
        return np.asarray(0.1 * noise, np.float32)
    if key.endswith(("pos_embed", "latent")):
        return np.asarray(0.5 * noise, np.float32)
    if len(shape) > 1:  # of a linear layer or a convolution: unit gain
        return np.asarray(noise / np.sqrt(np.prod(shape[1:])), np.float32)
    if key.endswith("weight"):  # of a norm
        return np.asarray(1 + 0.1 * noise, np.float32)
    return np.asarray(0.02 * noise, np.float32)  # a bias
