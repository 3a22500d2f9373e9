"""Random lives of a branch whose writes wait for other nodes' disks: owners and holders that die, hang, lose disks and come back.

The model is the list of commits. Whoever takes the branch over must stand at one of its prefixes: at or behind the newest
write that was acknowledged as replicated, while a member of the recorded set lives; at or behind the newest durable one in any case.
"""

import contextlib
import random

import pytest
from profiles import everything, put
from tail_cluster import Cluster

from memoturnd import node
from memoturnd.core.durability import Durability
from memoturnd.engine import tails as tailing
from memoturnd.errors import MemoturnError, NotDurableError

LOCAL, REPLICATED, DURABLE = Durability
NAMES = ("a", "b", "c", "d")


class Life:
    def __init__(self, cluster, seed):
        self.cluster = cluster
        self.chance = random.Random(seed)
        self.owner = "a"
        self.commits = []
        """(key, value) of each commit of the history that stands."""
        self.replicated = self.durable = 0
        """How many of them are acknowledged so."""
        self.txid = 0
        self.value = 0
        self.counts = dict.fromkeys(("replicated", "found", "lost", "zombie", "botched"), 0)

    def state(self, count):
        return dict(self.commits[:count])

    async def write(self, level=None):
        level = level or self.chance.choice((LOCAL, REPLICATED, REPLICATED, REPLICATED, DURABLE))
        if self.cluster.cables[self.owner].cut and level is DURABLE:
            return
        key, self.value = f"k{self.chance.randrange(4)}", self.value + 1
        self.commits.append((key, str(self.value)))
        profile = await self.cluster.profile(self.owner)
        if self.cluster.cables[self.owner].cut and len(self.others()) == 0:
            level = LOCAL
        try:
            written = await profile.write(put(key, str(self.value)), durability=level)
        except NotDurableError:  # it is applied
            assert self.cluster.cables[self.owner].cut
            self.txid = profile.txid
            return
        assert written.durability >= level
        assert written.txid > self.txid
        self.txid = written.txid
        if written.durability is DURABLE:
            self.durable = self.replicated = len(self.commits)
        elif written.durability is REPLICATED:
            self.replicated = len(self.commits)
            self.counts["replicated"] += 1

    def others(self):
        return [n for n in self.cluster.nodes if n != self.owner and n not in self.cluster.cut]

    async def ship(self):
        if not self.cluster.cables[self.owner].cut:
            profile = await self.cluster.profile(self.owner)
            owned = await profile.own()
            await (owned.shipper.snapshot() if self.chance.random() < 0.3 else owned.shipper.ship())
            self.durable = self.replicated = len(self.commits)
            await self.cluster.nodes[self.owner].tell_tails()

    async def pull_the_buckets_cable(self):
        self.cluster.cables[self.owner].cut = bool(self.others())

    async def lose_a_holder(self):
        if len(self.others()) > 1:
            name = self.chance.choice(self.others())
            await self.cluster.kill(name, disk_too=self.chance.random() < 0.6)

    async def hang_a_holder(self):
        if len(self.others()) > 1:
            self.cluster.cut.add(self.chance.choice(self.others()))

    async def mend(self):
        self.cluster.cut.clear()
        for name in NAMES:
            if name not in self.cluster.nodes:
                await self.cluster.start(name)

    async def lose_the_owner(self):
        if not self.others():
            return
        is_zombie = self.chance.random() < 0.3
        dead, members = self.owner, self.recorded()
        if is_zombie:
            self.cluster.cables[dead].cut = False
            self.cluster.replace(dead)
        else:
            await self.cluster.kill(dead, disk_too=self.chance.random() < 0.7)
        if self.chance.random() < 0.3 and len(self.others()) > 1:
            members = await self.botch(members)
        self.owner = self.chance.choice([name for name in self.others() if name != dead])
        await self.taken_over(members)
        if is_zombie:
            await self.zombie(dead)

    def recorded(self):
        return {node.node_id for found in self.cluster.table.sync_sets.values() for node in found.members}

    async def botch(self, members):
        """Let a takeover end behind the swap, and the node with it."""
        self.counts["botched"] += 1
        name = self.chance.choice([n for n in self.others() if n != self.owner])

        async def fails(*_args):
            raise MemoturnError("the power is gone (a test)")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tailing, "apply", fails)
            with contextlib.suppress(MemoturnError):
                await (await self.cluster.profile(name)).own()
        await self.cluster.kill(name, disk_too=name not in members)
        return members

    async def taken_over(self, members):
        alive = {name for name in members if name in self.cluster.nodes and name not in self.cluster.cut}
        lost = {name for name in alive if not self.cluster.nodes[name].tails.store.held()}
        floor = self.replicated if alive - lost else self.durable
        profile = await self.cluster.profile(self.owner)
        await profile.own()
        seen = (await profile.read(everything)).value
        stands = [n for n in range(len(self.commits) + 1) if self.state(n) == seen]
        assert stands, f"{seen} is no state that ever was"
        assert max(stands) >= floor, f"at commit {max(stands)}, {floor} were acknowledged"
        self.counts["found"] += max(stands) > self.durable
        self.counts["lost"] += floor < self.replicated and max(stands) < self.replicated
        del self.commits[max(stands) :]
        self.replicated = min(self.replicated, len(self.commits))
        self.durable = min(self.durable, len(self.commits))

    async def zombie(self, name):
        self.counts["zombie"] += 1
        profile = await self.cluster.profile(name)
        for level in (REPLICATED, DURABLE):
            with pytest.raises(MemoturnError):
                await profile.write(put("z", "zombie"), durability=level)
        self.cluster.leases[name].blind = False
        await self.cluster.kill(name, disk_too=self.chance.random() < 0.5)

    async def step(self):
        steps = [self.write] * 12 + [self.ship] * 2 + [self.lose_the_owner, self.mend] * 2
        steps += [self.pull_the_buckets_cable, self.lose_a_holder, self.hang_a_holder]
        await self.chance.choice(steps)()
        if not self.others():
            self.cluster.cables[self.owner].cut = False


async def live(tmp_path, monkeypatch, seed, *, steps, **env):
    monkeypatch.setattr(tailing, "READ_S", 0.2)
    monkeypatch.setattr(tailing, "AGAIN_S", 0.05)
    monkeypatch.setattr(tailing, "COOL_OFF_S", 0.2)
    monkeypatch.setattr(node, "DURABLE_WAIT_S", 0.3)
    async with Cluster(tmp_path, **env) as cluster:
        await cluster.start(*NAMES)
        await cluster.nodes["a"].databases.create("p")
        life = Life(cluster, seed)
        await life.write(DURABLE)  # a first write needs the bucket
        for _ in range(steps):
            await life.step()
        await life.mend()
        cluster.cables[life.owner].cut = False
        await life.write(DURABLE)
        profile = await cluster.profile(life.owner)
        assert (await profile.read(everything)).value == life.state(len(life.commits))
        return life.counts


@pytest.mark.parametrize("seed", range(4))
async def test_replicated_writes_are_found_while_a_member_lives(tmp_path, monkeypatch, seed):
    counts = await live(tmp_path, monkeypatch, seed, steps=60)
    assert counts["replicated"] > 3


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 140))
async def test_replicated_writes_are_found_through_long_lives(tmp_path, monkeypatch, seed):
    await live(tmp_path, monkeypatch, seed, steps=200, SYNC_REPLICAS=str(1 + seed % 2))
