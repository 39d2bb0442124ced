"""Tests of feast-segments."""
