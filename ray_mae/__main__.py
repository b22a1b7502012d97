"""`python -m ray_mae`: as `ray-mae`, with the code of the working folder where it has any."""

from ray_mae.cli import main

if __name__ == "__main__":
    main()
