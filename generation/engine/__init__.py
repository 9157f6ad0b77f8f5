"""The built-in engine: changes pixels by recipes, and knows nothing of Django."""

import os

# Intel's IPP rounds by where in memory a picture lies, so the same seed would not always give the same bytes; without
# it nothing measured is slower. OpenCV reads this once for all threads, at its first use, and warns that it obeyed.
os.environ["OPENCV_IPP"] = "disabled"
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
