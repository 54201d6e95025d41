"""Data sets in shards: made one at a time, resumed after a stop, remade when what made them changes.

A shard is one safetensors file. A plan says which shards there are and how each is made; a store is the folder
they lie in; an engine makes the missing ones, in this process or on a Ray cluster.
"""

from adv_detect.sharding.execution import execute_plan
from adv_detect.sharding.fingerprints import fingerprint
from adv_detect.sharding.plan import ShardContent, ShardPlan, ShardSpec
from adv_detect.sharding.store import ShardStore

__all__ = ["ShardContent", "ShardPlan", "ShardSpec", "ShardStore", "execute_plan", "fingerprint"]
