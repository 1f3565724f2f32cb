"""MuJoCo arms and tasks behind the Env protocol."""
