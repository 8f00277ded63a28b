"""Several games from the replay of DQN: one model for all, with and without slots, and a game held out."""

from studies.sequence_models import NEW_PARTS_RATE
from studies.study import Arm, Probe, Scale, Stage, Study

GAMES, HELD_OUT = ("asterix", "breakout", "space_invaders"), "freeway"
ATARI_GAMES, ATARI_HELD_OUT = ("breakout", "qbert", "seaquest"), "pong"

SPACES = {
    "minatar": ("env.all_channels=true", "env.full_action_space=true"),
    "atari": ("env.full_action_space=true",),
}
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


def replays(suite: str, games: tuple[str, ...], suffix: str, keys: tuple[str, ...]) -> Stage:
    """Gives the stage in which a DQN learns each game by itself, keeping all it plays.

    Args:
        suite: of the games.
        games: held-out one included.
        suffix: of the arms' names.
        keys: agent and length.
    """
    return Stage(
        arms=tuple(Arm(f"DQN-{game}{suffix}", (f"env.game={game}",)) for game in games),
        common=(*keys, f"env={suite}", *SPACES[suite]),
        seeds=(0,),
    )


def models(
    suite: str, games: tuple[str, ...], held_out: str, suffix: str, windows: int, keys: tuple[str, ...]
) -> Stage:
    """Gives the stage in which the models of several games are trained, all at the same number of windows in an update.

    Args:
        suite: of the games.
        games: that are learned.
        held_out: the game whose data are collected too.
        suffix: of the arms' names.
        windows: in an update; even. The model with slots sees them as pairs of consecutive ones.
        keys: size, length and evaluations.
    """
    unconditioned = (
        "agent.condition_on_return=false",
        "agent.return_prediction=null",
        "agent.acting.target.kind=quantile",
    )
    arms = {
        "BC": (f"agent.batch_size={windows}", *unconditioned),
        "DT": (f"agent.batch_size={windows}",),
        "DT-Mem": (f"agent.batch_size={windows // 2}", "agent.num_segments=2", *SLOTS),
    }
    data = ",".join("{data}/" + game for game in games)
    return Stage(
        arms=tuple(Arm(f"{name}{suffix}", overrides) for name, overrides in arms.items()),
        common=(
            "agent=multi_game_dt",
            "env=games",
            f"env.suite={suite}",
            f"env.games=[{','.join(games)}]",
            "trainer=offline",
            f"trainer.data=[{data}]",
            *keys,
        ),
        datasets={game: ("policy=replay", f"run={{run:DQN-{game}{suffix}}}") for game in (*games, held_out)},
    )


def adapted(held_out: str, suffix: str, steps: int, episodes: int) -> tuple[Arm, ...]:
    """Gives the ways of going on with the held-out game, at equal updates.

    Args:
        held_out: the game.
        suffix: of the bases' names.
        steps: gradient steps.
        episodes: played after the last step.
    """
    ways = {
        "DT-full": ("DT", "full", ()),
        "DT-LoRA": ("DT", "lora", ("where=transformer", NEW_PARTS_RATE)),
        "DT-scratch": ("DT", "scratch", ()),
        "DT-Mem-full": ("DT-Mem", "full", ()),
        "DT-Mem-LoRA": ("DT-Mem", "lora", ("where=both", NEW_PARTS_RATE)),
    }
    shared = (
        "per_task=true",
        "data=[{data}/" + held_out + "]",
        f"total_gradient_steps={steps}",
        f"evaluate_every_gradient_steps={steps}",
        f"evaluation_episodes={episodes}",
        "trainer.evaluate_at_start=false",
    )
    return tuple(
        Arm(f"{name}-{held_out}{suffix}", (f"method={method}", *keys, *shared), base + suffix)
        for name, (base, method, keys) in ways.items()
    )


def probes(games: tuple[str, ...], held_out: str, suffix: str, task_prefix: str) -> tuple[Probe, ...]:
    """Gives the evaluations that the page tells: every model in every game, and every DQN in its own."""
    groups = {f"{game}{suffix}": (f"{task_prefix}{game}",) for game in games}
    together = tuple(f"{name}{suffix}" for name in ("BC", "DT", "DT-Mem"))
    return (
        Probe("own game", ("random_baseline=true",), tuple(f"DQN-{game}{suffix}" for game in (*games, held_out))),
        Probe("", (), together, groups),
        Probe("memory not read", ("memory_use=zeroed_read",), (f"DT-Mem{suffix}",), groups),
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
    probes=(*probes(GAMES, HELD_OUT, "", "minatar-"), *probes(ATARI_GAMES, ATARI_HELD_OUT, "-atari", "")),
    references={name: f"DQN-{name}" for name in (*GAMES, *(f"{game}-atari" for game in ATARI_GAMES))},
    scales={
        "smoke": Scale(
            takes="three minutes on 2 cores with jobs=2",
            common=(),
            before=(
                replays(
                    "minatar",
                    (*GAMES, HELD_OUT),
                    "",
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
                    "minatar",
                    GAMES,
                    HELD_OUT,
                    "",
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
            arms=adapted(HELD_OUT, "", 20, 2),
            seeds=(0,),
            probe_episodes=3,
        ),
        "cpu": Scale(
            takes="half an hour on 2 cores with jobs=2",
            common=(),
            before=(
                replays(
                    "minatar",
                    (*GAMES, HELD_OUT),
                    "",
                    (
                        "agent=dqn_minatar",
                        "trainer.total_env_steps=100000",
                        "trainer.checkpoint_every_env_steps=50000",
                    ),
                ),
                models(
                    "minatar",
                    GAMES,
                    HELD_OUT,
                    "",
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
            arms=adapted(HELD_OUT, "", 400, 10),
            seeds=(0, 1, 2),
        ),
        "gpu": Scale(
            takes="days on a GPU; resumable",
            common=(),
            before=(
                replays(
                    "atari",
                    (*ATARI_GAMES, ATARI_HELD_OUT),
                    "-atari",
                    (
                        "agent=dqn",
                        "device=cuda",
                        "trainer.total_env_steps=1000000",
                        "trainer.checkpoint_every_env_steps=250000",
                    ),
                ),
                models(
                    "atari",
                    ATARI_GAMES,
                    ATARI_HELD_OUT,
                    "-atari",
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
            arms=adapted(ATARI_HELD_OUT, "-atari", 5000, 10),
            seeds=(0, 1, 2),
        ),
    },
)
