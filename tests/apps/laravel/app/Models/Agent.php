<?php

namespace App\Models;

class Agent extends CompanyRecord
{
}
