"""hydra configuration, found as the module melstate.recipes.configs."""
