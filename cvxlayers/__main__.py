"""`python -m cvxlayers`."""

from cvxlayers.cli.command import main

raise SystemExit(main())
