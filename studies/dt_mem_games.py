"""Several games from the replay of DQN: one model for all, with and without slots, and a game held out."""

from dataclasses import dataclass

from studies.sequence_models import NOT_AT_START, WAYS, adaptation_length, adapted_arms, chosen_ways
from studies.study import Arm, Probe, Scale, Stage, Study

MODELS = ("BC", "DT", "DT-Mem")
SMALL = (
    "agent.context_length=8",
    "agent.width=64",
    "agent.num_layers=2",
    "agent.num_heads=4",
    "agent.initialization=fan_in",
    "agent.dropout=0",
    "agent.learning_rate=1e-3",
    "agent.decay=cosine",
)
"""A multi-game model for a CPU: 7 tokens a step, four of them patches of 5x5 cells."""
SLOTS = ("agent.memory.kind=slots", "agent.memory.num_slots=16", "agent.memory.chunk=2")


@dataclass(frozen=True)
class Suite:
    """Games of one kind, and what their names are made of.

    Attributes:
        name: of the env.
        games: that the models learn.
        held_out: the game that they go on with.
        keys: of the env, so that all of its games have the same spaces.
        suffix: of the arms' names.
        task_prefix: of the tasks' names.
    """

    name: str
    games: tuple[str, ...]
    held_out: str
    keys: tuple[str, ...]
    suffix: str = ""
    task_prefix: str = ""

    @property
    def all_games(self) -> tuple[str, ...]:
        """Those learned, and the held-out one."""
        return (*self.games, self.held_out)

    def dqn(self, game: str) -> str:
        """Gives the name of the arm whose replay of a game is learned from."""
        return f"DQN-{game}{self.suffix}"


ALL_ACTIONS = "env.full_action_space=true"
MINATAR = Suite(
    "minatar",
    ("asterix", "breakout", "space_invaders"),
    "freeway",
    ("env.all_channels=true", ALL_ACTIONS),
    task_prefix="minatar-",
)
ATARI = Suite("atari", ("breakout", "qbert", "seaquest"), "pong", (ALL_ACTIONS,), suffix="-atari")


def replays(suite: Suite, keys: tuple[str, ...]) -> Stage:
    """Gives the stage in which a DQN learns each game by itself, keeping all it plays.

    Args:
        suite: of the games.
        keys: agent and length.
    """
    return Stage(
        arms=tuple(Arm(suite.dqn(game), (f"env.game={game}",)) for game in suite.all_games),
        common=(*keys, f"env={suite.name}", *suite.keys),
        seeds=(0,),
    )


def models(suite: Suite, windows: int, keys: tuple[str, ...]) -> Stage:
    """Gives the stage in which the models of several games are trained, all at the same number of windows in an update.

    Args:
        suite: of the games; the data of the held-out one are collected too.
        windows: in an update; even. The model with slots sees them as pairs of consecutive ones.
        keys: size, length and evaluations.
    """
    unconditioned = (
        "agent.condition_on_return=false",
        "agent.return_prediction=null",
        "agent.acting.target.kind=quantile",
    )
    whole, pairs = f"agent.batch_size={windows}", (f"agent.batch_size={windows // 2}", "agent.num_segments=2")
    overrides = ((whole, *unconditioned), (whole,), (*pairs, *SLOTS))
    data = ",".join("{data}/" + game for game in suite.games)
    return Stage(
        arms=tuple(Arm(f"{name}{suite.suffix}", each) for name, each in zip(MODELS, overrides, strict=True)),
        common=(
            "agent=multi_game_dt",
            "env=games",
            f"env.suite={suite.name}",
            f"env.games=[{','.join(suite.games)}]",
            "trainer=offline",
            f"trainer.data=[{data}]",
            *keys,
        ),
        datasets={game: ("policy=replay", f"run={{run:{suite.dqn(game)}}}") for game in suite.all_games},
    )


def adapted(suite: Suite, steps: int, episodes: int) -> tuple[Arm, ...]:
    """Gives the ways of going on with the held-out game, at equal updates.

    Args:
        suite: of the game.
        steps: gradient steps.
        episodes: played after the last step.
    """
    return adapted_arms(
        chosen_ways("DT-full", "DT-LoRA", "DT-scratch", "DT-Mem-full") | {"DT-Mem-LoRA": WAYS["DT-Mem-LoRA-both"]},
        "per_task=true",
        "data=[{data}/" + suite.held_out + "]",
        *adaptation_length(steps, steps, episodes),
        NOT_AT_START,
        suffix=f"-{suite.held_out}{suite.suffix}",
        base_suffix=suite.suffix,
    )


def probes(suite: Suite) -> tuple[Probe, ...]:
    """Gives the evaluations that the page tells: every model in every game, and every DQN in its own."""
    groups = {f"{game}{suite.suffix}": (f"{suite.task_prefix}{game}",) for game in suite.games}
    together = tuple(f"{name}{suite.suffix}" for name in MODELS)
    return (
        Probe("own game", ("random_baseline=true",), tuple(map(suite.dqn, suite.all_games))),
        Probe("", (), together, groups),
        Probe("memory not read", ("memory_use=zeroed_read",), together[-1:], groups),
    )


DT_MEM_GAMES = Study(
    name="dt_mem_games",
    title="DT-Mem on several games",
    question="Trained on the whole replay of a DQN in each of three games, what does one model score in all of them, "
    "with slots and without; and does it help in a fourth game, of which it gets the replay afterwards?",
    reading="Raw scores of different games do not add up; beside the reference they are shares of what our own DQN "
    "has in its game, greedy, above random play: a small one, trained briefly, not a published score. Where that DQN "
    "hardly beats random play, as in Asterix, a share means little, and in Freeway, where steady walking up scores, "
    "models can leave the DQN far behind whose replay they learned from. The page's first "
    "table is on the held-out game, after equal updates on all of its replay; what starts from scratch got no other "
    "data. Data hold everything that each DQN played, its random beginning included; there is one DQN per game, so the "
    "seeds of the models say nothing about other data. All models see equal numbers of windows in an update, the one "
    "with slots as pairs of consecutive ones, and play with the actions of the game alone. Low-rank additions take "
    "three times the learning rate; no rate was tuned. Lee et al. 2022 train on 41 Atari games, with models of 10 to "
    "200 million parameters; Kang et al. 2024 report their memory on such games too. Neither can be confirmed or "
    "refuted at this size.",
    probes=(*probes(MINATAR), *probes(ATARI)),
    references={f"{game}{suite.suffix}": suite.dqn(game) for suite in (MINATAR, ATARI) for game in suite.games},
    scales={
        "smoke": Scale(
            takes="three minutes on 2 cores with jobs=2",
            common=(),
            before=(
                replays(
                    MINATAR,
                    (
                        "agent=dqn_minatar",
                        "agent.learning_starts=500",
                        "env.max_episode_steps=200",
                        "trainer.total_env_steps=2000",
                        "trainer.checkpoint_every_env_steps=2000",
                        "trainer.evaluation_episodes=2",
                    ),
                ),
                models(
                    MINATAR,
                    8,
                    (
                        *SMALL,
                        "agent.warmup_steps=5",
                        "env.max_episode_steps=200",
                        "env.evaluation_episodes=2",
                        "trainer.total_gradient_steps=40",
                        "trainer.checkpoint_every_gradient_steps=40",
                        "trainer.evaluation_episodes=6",
                    ),
                ),
            ),
            arms=adapted(MINATAR, 20, 2),
            seeds=(0,),
            probe_episodes=3,
        ),
        "cpu": Scale(
            takes="half an hour on 2 cores with jobs=2",
            common=(),
            before=(
                replays(
                    MINATAR,
                    (
                        "agent=dqn_minatar",
                        "trainer.total_env_steps=100000",
                        "trainer.checkpoint_every_env_steps=50000",
                    ),
                ),
                models(
                    MINATAR,
                    32,
                    (
                        *SMALL,
                        "agent.warmup_steps=200",
                        "env.evaluation_episodes=10",
                        "trainer.total_gradient_steps=2000",
                        "trainer.checkpoint_every_gradient_steps=1000",
                        "trainer.evaluation_episodes=null",
                        "trainer.evaluation_envs=10",
                    ),
                ),
            ),
            arms=adapted(MINATAR, 400, 10),
            seeds=(0, 1, 2),
        ),
        "gpu": Scale(
            takes="days on a GPU; resumable",
            common=(),
            before=(
                replays(
                    ATARI,
                    (
                        "agent=dqn",
                        "device=cuda",
                        "trainer.total_env_steps=1000000",
                        "trainer.checkpoint_every_env_steps=250000",
                    ),
                ),
                models(
                    ATARI,
                    64,
                    (
                        "device=cuda",
                        "agent.precision=bf16",
                        "agent.learning_rate=3e-4",
                        "trainer.total_gradient_steps=50000",
                        "trainer.checkpoint_every_gradient_steps=5000",
                        "trainer.evaluation_episodes=30",
                        "trainer.evaluation_envs=10",
                    ),
                ),
            ),
            arms=adapted(ATARI, 5000, 10),
            seeds=(0, 1, 2),
        ),
    },
)
