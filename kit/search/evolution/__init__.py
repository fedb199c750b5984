"""Genetic algorithm, opposition-based differential evolution, Gen-Soup, their rivals and
workers.
"""
