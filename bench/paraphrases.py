"""Questions whose wording never overlaps with the memory that answers them: what only the dense channel can find.

Written for this measurement. Each row is (memory, question, decoy): the decoy shares words with the question and
does not answer it, so that words alone lead astray. No word of a question, stop words aside, has its stem in the
memory that answers it (tests/test_bench_smoke.py).
"""

from typing import Final

PARAPHRASES: Final[tuple[tuple[str, str, str], ...]] = (
    ("Ana gave up meat and eggs last spring", "Is she vegan?", "The vegan bakery opens at nine"),
    ("The cat had to be put to sleep in March", "Which pet died?", "The pet shop is closed on Mondays"),
    (
        "Leo swims forty laps before breakfast",
        "What exercise does he do in the morning?",
        "The exercise book is in the morning bag",
    ),
    (
        "Her sister lives in Lisbon",
        "Where in Portugal do her relatives stay?",
        "She would like to stay in Brazil one day",
    ),
    (
        "He cannot eat peanuts without swelling up",
        "What food allergy was mentioned?",
        "The allergy clinic moved its food bank",
    ),
    (
        "The landlord raised what they pay each month",
        "Did the rent go up?",
        "They rent bicycles and go uphill",
    ),
    ("Sam proposed to Kim on the beach", "When did they get engaged?", "The phone line was engaged all day"),
    (
        "The laptop will not turn on any more",
        "Which computer broke?",
        "He broke his record on the computer game",
    ),
    (
        "Mia fell off her horse and fractured her wrist",
        "What injury did the rider have?",
        "The rider of the bus had a ticket",
    ),
    (
        "They welcomed twins on Tuesday",
        "How many babies were born?",
        "She was born in a town with many parks",
    ),
    ("He prefers tea to coffee", "What hot beverage does he like best?", "The best hot weather is in July"),
    (
        "The meeting moved from noon to four in the afternoon",
        "What is the new time of the appointment?",
        "The dentist gives a new toothbrush at each appointment",
    ),
    ("Tom was let go when the factory shut", "Who lost his job?", "Ben lost his keys"),
    (
        "Nora speaks fluent Japanese",
        "Which languages can she talk?",
        "Talk about programming languages was boring",
    ),
    (
        "The doctor told him to cut down on salt",
        "What dietary advice was given for hypertension?",
        "Financial advice was given for free",
    ),
    (
        "Eva plays the cello in a quartet",
        "Which musical instrument does she practise?",
        "The musical was sold out",
    ),
    (
        "They painted the nursery yellow",
        "What colour is the baby's room?",
        "The hotel room has a view of the colour mill",
    ),
    (
        "His flight to Oslo was cancelled by the snow",
        "Why could he not travel to Norway?",
        "Many travel bloggers write about Sweden",
    ),
    (
        "The password must be reset every ninety days",
        "How often do login credentials expire?",
        "Parking permits expire often",
    ),
    (
        "She wants all reports as bullet points",
        "What format are summaries to be written in?",
        "The novel was written in winter",
    ),
    ("Ivan is afraid of heights", "What phobia does he suffer from?", "Farmers suffer from drought"),
    (
        "The car was stolen from the driveway",
        "Which vehicle is missing?",
        "A button is missing on the vehicle tax form",
    ),
    (
        "They adopted a greyhound from the shelter",
        "What breed of dog did the family get?",
        "Hot dog sellers breed mistrust",
    ),
    (
        "Grandma turns ninety in October",
        "How old will the grandmother be this autumn?",
        "Old autumn coats are in the cellar",
    ),
    (
        "He wires money to his parents each month",
        "Does he support his mother and father financially?",
        "The support desk is run by mother tongue speakers",
    ),
    (
        "The novel she is working on is set in wartime Berlin",
        "What is the author's book about?",
        "Book a table for two",
    ),
    ("Max quit smoking two years ago", "Which bad habit was dropped?", "He dropped the bad apples"),
    (
        "She runs a small bakery on Elm Street",
        "What business does she own?",
        "Mind your own business was his answer",
    ),
    (
        "The wedding will be held in a vineyard",
        "What is the venue for the marriage ceremony?",
        "The award ceremony is on television",
    ),
    ("Lena took the bar exam and passed", "Is she qualified as a lawyer?", "The team qualified as champions"),
    (
        "The baby sleeps through the night now",
        "Does the infant still wake up?",
        "The infant school is still closed",
    ),
    (
        "Their basement flooded in the storm",
        "What water damage did the house suffer?",
        "The water bill for the house is due",
    ),
    (
        "He is saving up for a sailing boat",
        "What large purchase is planned?",
        "A large tree is planned for the square",
    ),
    (
        "Zoe only buys second-hand clothes",
        "What are her shopping principles?",
        "The shopping centre has high principles",
    ),
    (
        "The invoice was paid twice by mistake",
        "Was there a duplicate charge?",
        "A duplicate key is in charge of the porter",
    ),
    (
        "Use metric units in every answer",
        "Should I reply with miles or kilometres?",
        "Reply with miles of thanks",
    ),
    (
        "Omar teaches mathematics at a primary school",
        "What does he do for a living?",
        "The living room is cold",
    ),
    (
        "The hikers lost their way in the fog",
        "Why were the walkers disoriented?",
        "The walkers were a punk band",
    ),
    (
        "She keeps bees on the roof",
        "What unusual hobby does she have?",
        "The hobby shop sells unusual trains",
    ),
    (
        "The deadline is the last Friday of the month",
        "By when must the work be finished?",
        "The work of the artist was finished in gold",
    ),
    (
        "He broke up with Julia at Christmas",
        "Is he single at present?",
        "A single present lay under the tree",
    ),
    (
        "Their son started university in Leeds",
        "Where does the student study?",
        "A study says students need sleep",
    ),
    (
        "The app crashes whenever a photo is uploaded",
        "What bug was reported with pictures?",
        "A bug sat on the pictures",
    ),
    (
        "She had her appendix out when she was ten",
        "Which surgery did she undergo as a child?",
        "The child waited outside the surgery",
    ),
    (
        "He drinks nothing alcoholic during the week",
        "When does he abstain from beer and wine?",
        "The wine fair abstains from beer ads",
    ),
    (
        "The roof of the barn needs new tiles",
        "What repair does the farm building require?",
        "Repair cafes require volunteers",
    ),
    (
        "Rosa won the regional chess tournament",
        "Which board game is she good at?",
        "The board said it was a good game",
    ),
    (
        "They are moving to Canada in the summer",
        "To what country will the family emigrate?",
        "Country music is for the whole family",
    ),
    ("He is colour-blind", "Can he tell red from green?", "Tell the red team from me"),
    (
        "The printer has run out of ink",
        "What office supply has to be bought?",
        "The office was bought by a bank",
    ),
    (
        "Ella walks to work to protect the climate",
        "How does she commute for environmental reasons?",
        "The reasons for the commute delay are unknown",
    ),
    (
        "Paul's knee hurts when he climbs stairs",
        "What joint pain was described?",
        "A joint venture was described",
    ),
    (
        "The concert was sold out within minutes",
        "Were there any tickets left?",
        "Turn left at the tickets office",
    ),
    (
        "She learned to drive at forty",
        "At what age did she get her licence?",
        "The dog licence is of great age",
    ),
    (
        "Their anniversary dinner is at a sushi bar",
        "What cuisine will the couple eat to celebrate?",
        "A couple of birds eat to celebrate spring",
    ),
    (
        "He has been sober since the accident",
        "Did the crash make him stop drinking?",
        "Stop the crash of waves and make tea",
    ),
    ("The children are taught at home", "Do the kids attend school?", "School buses attend to traffic"),
    (
        "Vera cannot stand loud places",
        "What environments does she dislike because of noise?",
        "The noise map of environments is online",
    ),
    (
        "Send nothing to customers without my approval",
        "Who has to sign off on outgoing mail?",
        "Sign the mail on the table",
    ),
    (
        "The bridge is closed for trucks",
        "Which heavy vehicles may not cross the river?",
        "Heavy rain made the river cross",
    ),
)
