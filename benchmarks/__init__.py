"""Speed, side by side with whatever else is installed:  python -m benchmarks --help"""
