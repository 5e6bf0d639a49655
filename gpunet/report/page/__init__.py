"""The report as one HTML page: `write(folder)` makes `folder/report.html` of what `gpunet reproduce` leaves there."""

from gpunet.report.page.writing import write

__all__ = ["write"]
