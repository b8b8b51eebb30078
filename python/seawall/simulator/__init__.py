"""A native server with OpenAI's and Anthropic's API that misbehaves on command: for tests, demos and benchmarks without the network.

with Simulator() as sim:
    sim.on("gpt-4", faults.rate_limit(retry_after=3), times=2)
    Chat("gpt-4", api_key="sk-test", base_url=sim.base_url).invoke("hello")
    print(sim.count("gpt-4"))
"""

from seawall.simulator import distributions, faults
from seawall.simulator._simulator import Request, Simulator
from seawall.simulator.distributions import Distribution
from seawall.simulator.faults import Fault

__all__ = ["Distribution", "Fault", "Request", "Simulator", "distributions", "faults"]
