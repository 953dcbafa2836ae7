"""Published weights of other code bases, as runs of ours; and our U-Net for theirs.

python -m score_jax.interop score_sde CHECKPOINT.pth --config=configs/... --workdir=FOLDER
"""
