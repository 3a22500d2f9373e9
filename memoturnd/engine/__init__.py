"""What owns a profile's file: connections, commit rounds, tiers, branches."""
