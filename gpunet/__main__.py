"""`python -m gpunet`: the command line, where no `gpunet` is on the path, or which Python's is meant to be plain."""

from gpunet.cli import main

if __name__ == "__main__":
    main()
