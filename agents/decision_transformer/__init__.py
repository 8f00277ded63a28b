"""Decision Transformers: plain, multi-game, prompted, recurrent (RMDT), and with a working memory (DT-Mem).

Importing this package is cheap; torch and Tianshou load when a config is built.
"""

from agents.decision_transformer.config import DecisionTransformerConfig

__all__ = ["DecisionTransformerConfig"]
