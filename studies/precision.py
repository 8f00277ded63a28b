"""Does a convolutional DQN learn as well in bfloat16 as in float32?"""

from studies.study import Arm, Scale, Study

ARMS = (Arm("fp32", ("agent.precision=fp32",)), Arm("bf16", ("agent.precision=bf16",)))

PIXEL_CATCH = (
    "agent=dqn",
    "agent.network.padding=valid",
    "agent.learning_rate=5e-4",
    "agent.gamma=0.97",
    "agent.learning_starts=500",
    "agent.epsilon_decay=2000",
    "agent.target_update_period=200",
    "agent.replay.capacity=6000",
    "env=classic",
    "env.id=pixel-catch-v0",
    "trainer.checkpoint_every_env_steps=2000",
    "trainer.evaluate_every_env_steps=500",
    "threads=1",
)

PRECISION = Study(
    name="precision",
    title="bfloat16 beside float32",
    question="Does a convolutional DQN whose body computes in bfloat16 (parameters, Adam, head, targets and loss in "
    "float32) learn as well as one in float32?",
    reading="Equal within noise means: the intervals overlap and neither arm is clearly more likely to be the better "
    "one. The task is small; that the two also agree over millions of frames of a real game is not shown here.",
    scales={
        "smoke": Scale(
            takes="a minute on 2 cores",
            common=(*PIXEL_CATCH, "trainer.total_env_steps=1500"),
            arms=ARMS,
            seeds=(0, 1),
        ),
        "cpu": Scale(
            takes="10 minutes on 2 cores",
            common=(*PIXEL_CATCH, "trainer.total_env_steps=6000"),
            arms=ARMS,
            seeds=(0, 1, 2, 3, 4),
        ),
        "gpu": Scale(
            takes="hours on a GPU; resumable",
            common=(
                "agent=dqn",
                "env=atari",
                "env.game=breakout",
                "device=cuda",
                "trainer.total_env_steps=1_250_000",
                "trainer.checkpoint_every_env_steps=125_000",
                "trainer.evaluate_every_env_steps=125_000",
            ),
            arms=ARMS,
            seeds=(0, 1, 2),
        ),
    },
)
