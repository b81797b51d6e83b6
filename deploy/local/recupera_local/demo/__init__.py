"""The platform's main job on a real file, through the gateway only: `python -m recupera_local.demo`."""
