"""Agents with a policy network and value networks: PPO and SAC, as Tianshou provides them, on our networks."""

from agents.actor_critic.config import PPOConfig, SACConfig

__all__ = ["PPOConfig", "SACConfig"]
