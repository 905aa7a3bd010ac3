"""How much does each site matter, by one method or another?"""
