"""Learned features: clusters of users, fitted as of an instant, stored as JSON, attached to users as features."""
