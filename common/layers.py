"""Layers that both tasks use."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


def example_keys(key: Array, count: int, axis_name: str | None = None) -> Array:
    """One key per example, by its place in the batch of all devices: keys [count].

    Cutting a batch over devices therefore changes no random number.
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014) of an array whose first axis is the batch.

    Unlike `flax.linen.Dropout`, every example has its own key, so that one device and
    several draw the same masks.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if not train or self.rate == 0.0:
            return x
        keys = example_keys(self.make_rng("dropout"), x.shape[0], self.axis_name)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1.0 - self.rate), 0).astype(x.dtype)
