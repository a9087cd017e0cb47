"""How good a stain is: metrics, LPIPS, baselines, and scores over specimens."""
